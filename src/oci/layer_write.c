#define ZLIB_CONST
#include "oci/layer_write.h"

#include "base/mem.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#define CHUNK      ((size_t)256 << 10)
#define GZIP_BITS  (15 + 16) /* zlib's word for: largest window, gzip's head and tail */
#define GZIP_LEVEL 6
#define GZIP_MEM   8

/* The first name of a file with several. */
struct first_name {
    uint32_t ino;
    char *path;
};

struct writer {
    struct tree *tree;
    struct archive *tar;
    struct archive_entry *entry;
    struct hash *hash; /* of the tar */
    z_stream z;
    bool z_ready;
    int fd;
    uint64_t size; /* written to fd */
    uint8_t *packed, *content;
    struct first_name *firsts; /* ascending by ino, as a walk finds them */
    size_t first_count;
    struct error *err;
    bool failed; /* *err has the reason already */
};

static void writer_free(struct writer *w)
{
    archive_entry_free(w->entry);
    archive_write_free(w->tar);
    hash_free(w->hash);
    if (w->z_ready)
        deflateEnd(&w->z);
    fd_close(&w->fd);
    free(w->packed);
    free(w->content);
    for (size_t i = 0; i < w->first_count; i++)
        free(w->firsts[i].path);
    free(w->firsts);
}

/* ---- bytes out ---- */

static int pack(struct writer *w, struct slice bytes, int flush)
{
    size_t n;

    w->z.next_in = bytes.ptr;
    w->z.avail_in = (uInt)bytes.len;
    do {
        w->z.next_out = w->packed;
        w->z.avail_out = CHUNK;
        if (deflate(&w->z, flush) == Z_STREAM_ERROR)
            return error_set(w->err, ERR_INTERNAL, "compressing a layer");
        n = CHUNK - w->z.avail_out;
        if (fd_write_all(w->fd, w->packed, n, "a layer's temporary file", w->err) < 0)
            return -1;
        w->size += n;
    } while (w->z.avail_out == 0);
    return 0;
}

static la_ssize_t on_write(struct archive *a, void *arg, const void *ptr, size_t len)
{
    struct writer *w = arg;
    struct slice rest = slice_of(ptr, len);

    (void)a;
    hash_update(w->hash, rest);
    while (rest.len) {
        struct slice part = slice_of(rest.ptr, rest.len < CHUNK ? rest.len : CHUNK);

        if (pack(w, part, Z_NO_FLUSH) < 0) {
            w->failed = true;
            return -1;
        }
        rest = slice_of(rest.ptr + part.len, rest.len - part.len);
    }
    return (la_ssize_t)len;
}

/* What libarchive says, unless the reason came from our own on_write(). */
static int fails(struct writer *w, const char *path)
{
    if (w->failed)
        return -1;
    return error_set(w->err, ERR_INVALID, "%s: cannot be put into a layer: %s", path,
                     archive_error_string(w->tar));
}

static int begin(struct writer *w)
{
    w->fd = file_temp(w->err);
    if (w->fd < 0)
        return -1;
    w->packed = xmalloc(CHUNK);
    w->content = xmalloc(CHUNK);
    w->hash = hash_new(HASH_SHA256);
    w->entry = archive_entry_new();
    w->tar = archive_write_new();
    if (!w->entry || !w->tar ||
        deflateInit2(&w->z, GZIP_LEVEL, Z_DEFLATED, GZIP_BITS, GZIP_MEM, Z_DEFAULT_STRATEGY) !=
            Z_OK)
        return error_set(w->err, ERR_INTERNAL, "starting a layer");
    w->z_ready = true;
    /* Of the two forms of extended attributes that which engines read. */
    if (archive_write_set_format_pax_restricted(w->tar) != ARCHIVE_OK ||
        archive_write_set_options(w->tar, "xattrheader=SCHILY") != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(w->tar, 1) != ARCHIVE_OK ||
        archive_write_open(w->tar, w, NULL, on_write, NULL) != ARCHIVE_OK)
        return fails(w, "the first entry");
    return 0;
}

/* ---- entries ---- */

/* NULL for the first name of a file, which is kept if more will come. */
static const char *first_name(struct writer *w, const struct tree_entry *e, const char *path)
{
    size_t low = 0, high = w->first_count;

    if (e->nlink < 2 || S_ISDIR(e->mode))
        return NULL;
    if (e->first) {
        if ((w->first_count & (w->first_count - 1)) == 0)
            w->firsts = xreallocarray(w->firsts, w->first_count ? 2 * w->first_count : 1,
                                      sizeof(*w->firsts));
        w->firsts[w->first_count++] = (struct first_name){e->ino, xstrdup(path)};
        return NULL;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (w->firsts[middle].ino < e->ino)
            low = middle + 1;
        else
            high = middle;
    }
    return w->firsts[low].path;
}

static void describe(struct writer *w, const struct tree_entry *e, const char *path)
{
    AUTO_FREE char *target = slice_dup_str(e->target);
    const char *first = first_name(w, e, path);
    struct slice name, value;
    uint32_t cursor = 0;

    archive_entry_clear(w->entry);
    archive_entry_set_pathname(w->entry, path);
    archive_entry_set_mode(w->entry, e->mode);
    archive_entry_set_uid(w->entry, e->uid);
    archive_entry_set_gid(w->entry, e->gid);
    archive_entry_set_mtime(w->entry, e->mtime, 0);
    archive_entry_set_size(w->entry, S_ISREG(e->mode) && !first ? (la_int64_t)e->size : 0);
    if (S_ISCHR(e->mode) || S_ISBLK(e->mode)) {
        archive_entry_set_rdevmajor(w->entry, e->rdev_major);
        archive_entry_set_rdevminor(w->entry, e->rdev_minor);
    }
    if (first)
        archive_entry_set_hardlink(w->entry, first);
    else if (S_ISLNK(e->mode))
        archive_entry_set_symlink(w->entry, target);
    while (!first && e->has_xattrs && tree_next_xattr(w->tree, e->node, &cursor, &name, &value)) {
        AUTO_FREE char *text = slice_dup_str(name);

        if (strcmp(text, "security.capability") == 0)
            archive_entry_xattr_add_entry(w->entry, text, value.ptr, value.len);
    }
}

static int put_content(struct writer *w, const struct tree_entry *e, const char *path)
{
    AUTO_TREE_CONTENT struct tree_content c = TREE_CONTENT_NONE;
    ssize_t n;

    if (tree_content_open(w->tree, e->node, &c, w->err) < 0)
        return -1;
    while ((n = tree_content_read(&c, w->content, CHUNK, w->err)) > 0)
        if (archive_write_data(w->tar, w->content, (size_t)n) != n)
            return fails(w, path);
    return (int)n;
}

static bool is_ascii(const char *text)
{
    while (*text && (unsigned char)*text < 0x80)
        text++;
    return *text == '\0';
}

/*
 * Names are bytes. In the C locale, which is ours, libarchive cannot tell what others mean, writes
 * the bytes as they are with a word that says so (hdrcharset=BINARY), and warns.
 */
static bool put_header(struct writer *w, const char *path)
{
    const char *target = archive_entry_symlink(w->entry), *first = archive_entry_hardlink(w->entry);
    int rc = archive_write_header(w->tar, w->entry);

    return rc == ARCHIVE_OK ||
           (rc == ARCHIVE_WARN &&
            !(is_ascii(path) && is_ascii(target ? target : "") && is_ascii(first ? first : "")));
}

static int put_entries(struct writer *w)
{
    AUTO_TREE_WALK struct tree_walk *walk = tree_walk_new(w->tree);
    struct tree_entry e;

    while (tree_walk_next(walk, &e)) {
        AUTO_FREE char *path = slice_dup_str(e.path);

        describe(w, &e, path);
        if (!put_header(w, path))
            return fails(w, path);
        if (archive_entry_size(w->entry) > 0 && put_content(w, &e, path) < 0)
            return -1;
    }
    return 0;
}

int layer_write(struct tree *t, struct digest *diff_id, uint64_t *size, struct error *err)
{
    CLEANUP(writer_free) struct writer w = {.tree = t, .fd = -1, .err = err};
    int fd;

    if (tree_capabilities(t, TREE_CAPABILITIES_KEEP, err) < 0 || begin(&w) < 0 ||
        put_entries(&w) < 0)
        return -1;
    if (archive_write_close(w.tar) != ARCHIVE_OK)
        return fails(&w, "the last entry");
    if (pack(&w, slice_of(NULL, 0), Z_FINISH) < 0)
        return -1;
    diff_id->alg = HASH_SHA256;
    hash_final(w.hash, diff_id->bytes);
    *size = w.size;
    fd = w.fd;
    w.fd = -1;
    return fd;
}
