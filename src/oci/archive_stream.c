#include "oci/archive_stream.h"

#include "base/log.h"
#include "oci/manifest_write.h"
#include "oci/progress.h"
#include "oci/tar_writer.h"

#include <jansson.h>
#include <stdio.h>

#define CHUNK     ((size_t)256 << 10)
#define BLOB_DIR  "blobs/sha256/"
#define BLOB_NAME (sizeof(BLOB_DIR) + (size_t)2 * SHA256_LEN)
#define FIXED_MAX 6 /* members that are no blobs of the image, and the end */

struct archive_stream {
    struct content_blob *members;      /* each with its header and padding */
    const struct content_blob **blobs; /* of the image, that these members hold, or NULL */
    size_t count;
    struct buf heads; /* never moves */
    char *texts[2];   /* of the small files */
    uint64_t size;
    size_t at;       /* member */
    uint64_t offset; /* in it */
    struct progress shown;
};

/* The member's header, behind which the caller puts the content. */
static struct content_blob *begin_member(struct archive_stream *s, const char *name, uint64_t size)
{
    struct content_blob *m = &s->members[s->count++];
    size_t len = s->heads.len;

    if (name[strlen(name) - 1] == '/')
        tar_put_dir(&s->heads, name, 0755, 0);
    else
        tar_put_file(&s->heads, name, 0644, size, 0);
    content_add_bytes(m, slice_of(s->heads.ptr + len, s->heads.len - len));
    return m;
}

static void end_member(struct archive_stream *s, struct content_blob *m, uint64_t size)
{
    if (tar_padding(size).len)
        content_add_bytes(m, tar_padding(size));
    s->size += m->size;
}

static void add_text(struct archive_stream *s, const char *name, char *text, size_t slot)
{
    size_t len = text ? strlen(text) : 0;
    struct content_blob *m = begin_member(s, name, len);

    if (len)
        content_add_bytes(m, slice_of(text, len));
    end_member(s, m, len);
    s->texts[slot] = text;
}

static const char *blob_name(const struct content_blob *b, char out[BLOB_NAME])
{
    char text[DIGEST_TEXT_MAX];

    snprintf(out, BLOB_NAME, BLOB_DIR "%s", digest_text(&b->digest, text) + 7);
    return out;
}

static void add_blob(struct archive_stream *s, const struct content_blob *b)
{
    char name[BLOB_NAME];
    struct content_blob *m = begin_member(s, blob_name(b, name), b->size);

    s->blobs[s->count - 1] = b;
    for (size_t i = 0; i < b->piece_count; i++) {
        const struct content_piece *p = &b->pieces[i];

        if (p->fd < 0)
            content_add_bytes(m, slice_of(p->bytes, (size_t)p->size));
        else
            content_add_file(m, p->fd, p->offset, p->size);
    }
    end_member(s, m, b->size);
}

static bool occurs_before(const struct content_image *image, size_t layer)
{
    for (size_t i = 0; i < layer; i++)
        if (digest_equal(&image->layers[i].digest, &image->layers[layer].digest))
            return true;
    return false;
}

static struct archive_stream *begin(const struct content_image *image)
{
    size_t max = image->layer_count + FIXED_MAX + 2;
    struct archive_stream *s = xcalloc(1, sizeof(*s));

    s->members = xcalloc(max, sizeof(*s->members));
    s->blobs = xcalloc(max, sizeof(const struct content_blob *));
    s->heads = BUF(max * TAR_BLOCK);
    if (!buf_reserve(&s->heads, max * TAR_BLOCK))
        abort(); /* it is its maximum */
    add_text(s, "blobs/", NULL, 0);
    add_text(s, BLOB_DIR, NULL, 0);
    add_blob(s, &image->config);
    for (size_t i = 0; i < image->layer_count; i++)
        if (!occurs_before(image, i))
            add_blob(s, &image->layers[i]);
    return s;
}

static void end(struct archive_stream *s)
{
    struct content_blob *m = &s->members[s->count++];

    content_add_bytes(m, tar_end());
    s->size += m->size;
}

struct archive_stream *archive_stream_oci(const struct content_image *image, const char *name)
{
    struct archive_stream *s = begin(image);
    json_t *index = oci_index_new();

    add_blob(s, &image->manifest);
    json_array_append_new(json_object_get(index, "manifests"), oci_index_entry_new(image, name));
    add_text(s, "index.json", oci_json_text(index), 0);
    add_text(s, "oci-layout", xstrdup(OCI_LAYOUT_TEXT), 1);
    end(s);
    json_decref(index);
    return s;
}

struct archive_stream *archive_stream_docker(const struct content_image *image, const char *name)
{
    struct archive_stream *s = begin(image);
    char path[BLOB_NAME];
    json_t *layers = json_array(), *doc;

    for (size_t i = 0; i < image->layer_count; i++)
        json_array_append_new(layers, json_string(blob_name(&image->layers[i], path)));
    doc = json_pack("[{s:s,s:[s],s:o}]", "Config", blob_name(&image->config, path), "RepoTags",
                    name, "Layers", layers);
    add_text(s, "manifest.json", oci_json_text(doc), 0);
    end(s);
    json_decref(doc);
    return s;
}

void archive_stream_free(struct archive_stream *s)
{
    if (!s)
        return;
    progress_end(&s->shown);
    free(s->members);
    free(s->blobs);
    buf_free(&s->heads);
    free(s->texts[0]);
    free(s->texts[1]);
    free(s);
}

uint64_t archive_stream_size(const struct archive_stream *s)
{
    return s->size;
}

void archive_stream_rewind(struct archive_stream *s)
{
    s->at = 0;
    s->offset = 0;
}

/* Of the member that is being read, if it holds a blob. */
static void show(struct archive_stream *s)
{
    const struct content_blob *b = s->blobs[s->at];
    char text[DIGEST_TEXT_MAX], what[DIGEST_TEXT_MAX + 8];

    if (!b || s->offset <= TAR_BLOCK)
        return;
    snprintf(what, sizeof(what), "blob %s", digest_text(&b->digest, text));
    if (s->offset < s->members[s->at].size) {
        progress_show(&s->shown, what, s->offset - TAR_BLOCK, b->size);
        return;
    }
    progress_end(&s->shown);
    log_info("image", "sent", kv_str("what", what), kv_uint("bytes", b->size));
}

ssize_t archive_stream_read(struct archive_stream *s, void *to, size_t len, struct error *err)
{
    size_t done = 0;

    while (done < len && s->at < s->count) {
        ssize_t n =
            content_read(&s->members[s->at], s->offset, (uint8_t *)to + done, len - done, err);

        if (n < 0)
            return -1;
        if (n == 0) {
            s->at++;
            s->offset = 0;
        }
        s->offset += (uint64_t)n;
        done += (size_t)n;
        if (n > 0)
            show(s);
    }
    return (ssize_t)done;
}

int archive_stream_write(struct archive_stream *s, int fd, const char *where, struct error *err)
{
    AUTO_FREE uint8_t *chunk = xmalloc(CHUNK);
    ssize_t n;

    while ((n = archive_stream_read(s, chunk, CHUNK, err)) > 0)
        if (fd_write_all(fd, chunk, (size_t)n, where, err) < 0)
            return -1;
    return n < 0 ? -1 : 0;
}
