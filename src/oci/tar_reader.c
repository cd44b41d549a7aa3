#include "oci/tar_reader.h"

#define TAR_BLOCK 512

/*
 * Some writers (umoci insert) end a layer right behind the last file's content, without the zeros
 * that fill its block; engines take that, libarchive does not. What is missing of content, not of
 * filling, is found by the digests of the layer.
 */
static struct slice fill_last_block(struct tar *t)
{
    static const uint8_t zeros[TAR_BLOCK];
    size_t missing = (TAR_BLOCK - t->pos % TAR_BLOCK) % TAR_BLOCK;

    t->pos += missing;
    return slice_of(zeros, missing);
}

static la_ssize_t on_read(struct archive *a, void *arg, const void **out)
{
    struct tar *t = arg;
    struct slice s;

    (void)a;
    if (t->unpack) {
        if (unpack_read(t->unpack, &s, t->err) < 0)
            goto fail;
        t->pos += s.len;
        if (s.len == 0)
            s = fill_last_block(t);
    } else {
        uint64_t left = t->blob->size - t->pos;
        size_t len = left < UNPACK_CHUNK ? (size_t)left : UNPACK_CHUNK;

        if (fd_pread_full(t->blob->fd, t->buf, len, (off_t)(t->blob->offset + t->pos),
                          t->blob->name, t->err) < 0)
            goto fail;
        t->pos += len;
        s = slice_of(t->buf, len);
    }
    if (!t->begun)
        t->empty = s.len == 0;
    t->begun = true;
    *out = s.ptr;
    return (la_ssize_t)s.len;
fail:
    t->failed = true;
    return ARCHIVE_FATAL;
}

static la_int64_t on_skip(struct archive *a, void *arg, la_int64_t want)
{
    struct tar *t = arg;
    uint64_t left = t->blob->size - t->pos;

    (void)a;
    if ((uint64_t)want > left)
        want = (la_int64_t)left;
    t->pos += (uint64_t)want;
    return want;
}

static int failed(struct tar *t, struct error *err)
{
    const char *why = archive_error_string(t->a);

    if (t->failed)
        return -1;
    if (why && strstr(why, "Unrecognized archive format"))
        return error_set(err, ERR_INVALID, "%s: not a tar archive", t->name);
    return error_set(err, ERR_INVALID, "%s: the tar archive is damaged (%s)", t->name,
                     why ? why : "unknown reason");
}

int tar_open(struct tar *t, struct unpack *u, const struct blob *plain, const char *name,
             struct error *err)
{
    *t = (struct tar){.unpack = u, .blob = plain, .name = name, .err = err};
    t->a = archive_read_new();
    if (!t->a || archive_read_support_format_tar(t->a) != ARCHIVE_OK)
        return error_set(err, ERR_INTERNAL, "libarchive cannot start");
    archive_read_set_read_callback(t->a, on_read);
    archive_read_set_callback_data(t->a, t);
    if (plain) {
        t->buf = xmalloc(UNPACK_CHUNK);
        archive_read_set_skip_callback(t->a, on_skip);
    }
    /* An empty stream is a layer without entries, not an archive of an unknown format. */
    if (archive_read_open1(t->a) != ARCHIVE_OK && !(t->empty && !t->failed))
        return failed(t, err);
    return 0;
}

/*
 * Warnings mean that something was left out, which is an error here; but libarchive also warns when
 * a UTF-8 name is not in the character set of the C locale, and then gives us the bytes as they
 * are, which is what we want.
 */
static bool is_about_names(struct tar *t)
{
    const char *why = archive_error_string(t->a);

    return why && strstr(why, "can't be converted");
}

int tar_next(struct tar *t, struct error *err)
{
    int rc;

    t->err = err;
    if (t->empty)
        return 0;
    rc = archive_read_next_header(t->a, &t->entry);
    if (rc == ARCHIVE_EOF || (rc != ARCHIVE_OK && t->empty && !t->failed))
        return 0;
    if (rc == ARCHIVE_OK || (rc == ARCHIVE_WARN && is_about_names(t)))
        return 1;
    return failed(t, err);
}

int tar_data(struct tar *t, struct slice *data, uint64_t *offset, struct error *err)
{
    const void *ptr;
    la_int64_t at;
    size_t len;
    int rc;

    t->err = err;
    rc = archive_read_data_block(t->a, &ptr, &len, &at);
    if (rc == ARCHIVE_EOF)
        return 0;
    if (rc != ARCHIVE_OK)
        return failed(t, err);
    *data = slice_of(ptr, len);
    *offset = (uint64_t)at;
    return 1;
}

uint64_t tar_offset(const struct tar *t)
{
    /* All that the format has consumed when it hands out an entry is its header. */
    return (uint64_t)archive_filter_bytes(t->a, 0);
}

void tar_close(struct tar *t)
{
    if (t->a)
        archive_read_free(t->a);
    free(t->buf);
    *t = TAR_NONE;
}
