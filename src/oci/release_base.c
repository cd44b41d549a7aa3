#include "oci/release_base.h"

#include "base/log.h"
#include "oci/content.h"
#include "oci/manifest_write.h"
#include "oci/tar_writer.h"
#include "oci/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#define PATH_ENV "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define TIME_MAX INT64_C(253402300799) /* the end of the year 9999 */

void release_base_free(struct release_base *b)
{
    free(b->reference);
    free(b->repo_digest);
    free(b->layers);
    buf_free(&b->config);
    *b = (struct release_base){0};
}

const char *release_time(int64_t seconds, char out[RELEASE_TIME_SIZE])
{
    time_t t = seconds < 0 ? 0 : seconds > TIME_MAX ? TIME_MAX : seconds;
    struct tm tm;

    gmtime_r(&t, &tm);
    strftime(out, RELEASE_TIME_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return out;
}

static void add_layer(struct release_base *b, const char *media_type,
                      const struct stored_blob *blob)
{
    b->layers = xreallocarray(b->layers, b->layer_count + 1, sizeof(*b->layers));
    b->layers[b->layer_count++] = (struct release_layer){media_type, *blob};
}

/* ---- somebody's image ---- */

struct taking {
    struct store *store;
    struct release_base *base;
};

static int take_config(void *arg, struct slice json, struct error *err)
{
    struct release_base *b = ((struct taking *)arg)->base;

    if (buf_append(&b->config, json.ptr, json.len) < 0)
        return error_set(err, ERR_LIMIT, "the configuration has more than %zu bytes",
                         b->config.max);
    return 0;
}

/* By content, as engines tell it: what archives say of their layers is not to be relied on. */
static const char *layer_type(const struct blob *b, struct error *err)
{
    static const uint8_t gzip[] = {0x1f, 0x8b}, zstd[] = {0x28, 0xb5, 0x2f, 0xfd};
    uint8_t head[4] = {0};

    if (b->size >= sizeof(head) &&
        fd_pread_full(b->fd, head, sizeof(head), (off_t)b->offset, b->name, err) < 0)
        return NULL;
    if (memcmp(head, gzip, sizeof(gzip)) == 0)
        return OCI_LAYER_TYPE "+gzip";
    if (memcmp(head, zstd, sizeof(zstd)) == 0)
        return OCI_LAYER_TYPE "+zstd";
    return OCI_LAYER_TYPE;
}

/* Compares the digests of both sides, which nobody else does for a layer that is not applied. */
static int check_layer(const struct blob *b, const struct digest *want,
                       const struct digest *diff_id, uint64_t max, struct error *err)
{
    struct digest packed, unpacked;
    AUTO_UNPACK struct unpack *u = unpack_new(b, want ? &want->alg : NULL, &diff_id->alg, max, err);

    if (!u || unpack_drain(u, err) < 0)
        return -1;
    unpack_digests(u, &packed, &unpacked);
    if (want && !digest_equal(want, &packed))
        return digest_mismatch(b->name, want, &packed, err);
    if (!digest_equal(diff_id, &unpacked))
        return digest_mismatch("the layer's uncompressed content", diff_id, &unpacked, err);
    return 0;
}

static int take_layer(void *arg, const struct blob *b, const struct digest *want,
                      const struct digest *diff_id, uint64_t max, struct error *err)
{
    struct taking *t = arg;
    AUTO_STORE_WRITER struct store_writer w = STORE_WRITER_NONE;
    struct content_blob bytes = {0};
    struct stored_blob blob;
    const char *type = layer_type(b, err);

    if (t->base->layer_count == RELEASE_BASE_LAYERS_MAX)
        return error_set(err, ERR_LIMIT, "more than %d layers", RELEASE_BASE_LAYERS_MAX);
    content_add_file(&bytes, b->fd, b->offset, b->size);
    if (!type || check_layer(b, want, diff_id, max, err) < 0 ||
        store_write(t->store, &w, err) < 0 ||
        content_write(&bytes, w.fd, "a layer in the image store", err) < 0 ||
        store_commit(t->store, &w, &blob, err) < 0)
        return -1;
    add_layer(t->base, type, &blob);
    return 0;
}

int release_base_load(struct store *s, const char *reference, const struct image_options *options,
                      struct release_base *out, struct error *err)
{
    AUTO_RELEASE_BASE struct release_base b = {.config = BUF(BLOB_JSON_MAX)};
    struct taking taking = {s, &b};
    const struct image_sink sink = {.config = take_config, .layer = take_layer, .arg = &taking};
    AUTO_IMAGE struct image im = {0};

    if (image_load_parts(reference, options, &sink, &im, err) < 0)
        return -1;
    if (!im.config.entrypoint || !im.config.entrypoint[0]) {
        error_set(err, ERR_INVALID, "image %.300s: has no ENTRYPOINT", reference);
        return error_hint(err, "the release image is started with capsule-shell's options; make "
                               "capsule-shell the base's ENTRYPOINT");
    }
    b.reference = xstrdup(reference);
    b.repo_digest = im.repo_digest;
    im.repo_digest = NULL;
    b.id = im.id;
    *out = b;
    b = (struct release_base){0};
    return 0;
}

/* ---- our own ---- */

/* Directories first, then what is in them. */
static void put_tree(struct buf *head, uint64_t shell_size, int64_t mtime)
{
    static const struct {
        const char *name;
        uint32_t mode;
    } dirs[] = {
        {"run/", 0755},
        {"run/nitro_enclaves/", 0755},
        {"tmp/", 01777},
        {"usr/", 0755},
        {"usr/local/", 0755},
        {"usr/local/bin/", 0755},
        {"var/", 0755},
        {"var/log/", 0755},
        {"var/log/nitro_enclaves/", 0755},
    };

    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        tar_put_dir(head, dirs[i].name, dirs[i].mode, mtime);
    tar_put_file(head, &RELEASE_SHELL_PATH[1], 0755, shell_size, mtime);
}

static int store_shell_layer(struct store *s, const char *path, int64_t mtime,
                             struct stored_blob *out, struct error *err)
{
    AUTO_STORE_WRITER struct store_writer w = STORE_WRITER_NONE;
    AUTO_BUF struct buf head = BUF((size_t)16 * TAR_BLOCK);
    AUTO_BLOB struct blob shell = BLOB_NONE;
    struct content_blob layer = {0};

    if (blob_open_at(AT_FDCWD, path, path, &shell, err) < 0)
        return -1;
    put_tree(&head, shell.size, mtime);
    content_add_bytes(&layer, buf_slice(&head));
    content_add_file(&layer, shell.fd, 0, shell.size);
    content_add_bytes(&layer, tar_padding(shell.size));
    content_add_bytes(&layer, tar_end());
    if (store_write(s, &w, err) < 0 ||
        content_write(&layer, w.fd, "the shell's layer in the image store", err) < 0)
        return -1;
    return store_commit(s, &w, out, err);
}

int release_base_make(struct store *s, const char *shell_path, const char *arch, int64_t mtime,
                      struct release_base *out, struct error *err)
{
    char created[RELEASE_TIME_SIZE], diff_id[DIGEST_TEXT_MAX];
    AUTO_FREE char *text = NULL;
    struct stored_blob layer;
    json_t *doc;

    if (store_shell_layer(s, shell_path, mtime, &layer, err) < 0)
        return -1;
    release_time(mtime, created);
    doc = json_pack("{s:s,s:s,s:s,s:{s:[s],s:[s],s:s},s:{s:s,s:[s]},s:[{s:s,s:s}]}", "created",
                    created, "architecture", arch, "os", "linux", "config", "Env", PATH_ENV,
                    "Entrypoint", RELEASE_SHELL_PATH, "WorkingDir", "/", "rootfs", "type", "layers",
                    "diff_ids", digest_text(&layer.digest, diff_id), "history", "created", created,
                    "created_by", "capsule-cli build: capsule-shell");
    text = oci_json_text(doc);
    json_decref(doc);
    *out = (struct release_base){.config = BUF(BLOB_JSON_MAX), .id = {.alg = HASH_SHA256}};
    if (buf_append_str(&out->config, text) < 0)
        abort(); /* a text of this size always fits */
    hash_once(HASH_SHA256, buf_slice(&out->config), out->id.bytes);
    add_layer(out, OCI_LAYER_TYPE, &layer);
    return 0;
}
