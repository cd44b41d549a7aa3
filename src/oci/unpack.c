#include "oci/unpack.h"

#include <errno.h>
#include <zlib.h>
#include <zstd.h>

enum step {
    STEP_MORE, /* input is used up or output is full */
    STEP_END,  /* a member or frame ended */
};

/* One compression format: feeds u->in into u->out. */
struct format {
    const char *name;
    uint8_t magic[6];
    size_t magic_len;
    int (*start)(struct unpack *u, struct error *err); /* NULL: known, but not supported */
    int (*step)(struct unpack *u, enum step *step, struct error *err);
    void (*stop)(struct unpack *u);
};

struct unpack {
    const struct blob *blob;
    const struct format *format;
    uint64_t in_total, out_total, max;
    struct slice in; /* read but not yet decompressed */
    size_t out_len;
    bool ended;   /* at the end of a member or frame */
    bool started; /* the decompressor exists */
    bool same;    /* plain, and one digest serves for both */
    struct hash *in_hash, *out_hash;
    enum hash_alg in_alg, out_alg;
    z_stream z;
    ZSTD_DStream *zstd;
    uint8_t *in_buf, *out_buf;
};

/* ---- gzip ---- */

static int gzip_start(struct unpack *u, struct error *err)
{
    if (inflateInit2(&u->z, 15 + 16) != Z_OK)
        return error_set(err, ERR_INTERNAL, "%s: zlib cannot start", u->blob->name);
    return 0;
}

static int gzip_step(struct unpack *u, enum step *step, struct error *err)
{
    int rc;

    if (u->ended && inflateReset(&u->z) != Z_OK)
        return error_set(err, ERR_INTERNAL, "%s: zlib cannot start", u->blob->name);
    u->z.next_in = (Bytef *)(uintptr_t)u->in.ptr;
    u->z.avail_in = (uInt)u->in.len;
    u->z.next_out = u->out_buf + u->out_len;
    u->z.avail_out = (uInt)(UNPACK_CHUNK - u->out_len);
    rc = inflate(&u->z, Z_NO_FLUSH);
    u->in = slice_of(u->z.next_in, u->z.avail_in);
    u->out_len = UNPACK_CHUNK - u->z.avail_out;
    *step = rc == Z_STREAM_END ? STEP_END : STEP_MORE;
    if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
        return error_set(err, ERR_INVALID, "%s: the gzip stream is damaged (%s)", u->blob->name,
                         u->z.msg ? u->z.msg : "bad data");
    return 0;
}

static void gzip_stop(struct unpack *u)
{
    inflateEnd(&u->z);
}

/* ---- zstd ---- */

static int zstd_start(struct unpack *u, struct error *err)
{
    u->zstd = ZSTD_createDStream();
    if (!u->zstd ||
        ZSTD_isError(ZSTD_DCtx_setParameter(u->zstd, ZSTD_d_windowLogMax, UNPACK_ZSTD_WINDOW)))
        return error_set(err, ERR_INTERNAL, "%s: zstd cannot start", u->blob->name);
    return 0;
}

static int zstd_step(struct unpack *u, enum step *step, struct error *err)
{
    ZSTD_inBuffer in = {u->in.ptr, u->in.len, 0};
    ZSTD_outBuffer out = {u->out_buf, UNPACK_CHUNK, u->out_len};
    size_t rc = ZSTD_decompressStream(u->zstd, &out, &in);

    u->in = slice_of(u->in.ptr + in.pos, u->in.len - in.pos);
    u->out_len = out.pos;
    *step = rc == 0 ? STEP_END : STEP_MORE;
    if (!ZSTD_isError(rc))
        return 0;
    if (strstr(ZSTD_getErrorName(rc), "memory")) {
        error_set(err, ERR_UNSUPPORTED,
                  "%s: the zstd stream needs a window of more than %d MiB to be read",
                  u->blob->name, 1 << (UNPACK_ZSTD_WINDOW - 20));
        return error_hint(err, "compress the layer again with level 19 or less");
    }
    return error_set(err, ERR_INVALID, "%s: the zstd stream is damaged (%s)", u->blob->name,
                     ZSTD_getErrorName(rc));
}

static void zstd_stop(struct unpack *u)
{
    ZSTD_freeDStream(u->zstd);
}

/* The last row is plain. */
static const struct format formats[] = {
    {"gzip", {0x1f, 0x8b}, 2, gzip_start, gzip_step, gzip_stop},
    {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, zstd_start, zstd_step, zstd_stop},
    {"bzip2", {'B', 'Z', 'h'}, 3, NULL, NULL, NULL},
    {"xz", {0xfd, '7', 'z', 'X', 'Z', 0x00}, 6, NULL, NULL, NULL},
    {"plain", {0}, 0, NULL, NULL, NULL},
};

/* zstd streams may begin with a skippable frame: magic 0x184d2a50 to 0x184d2a5f. */
static bool is_skippable(struct slice in)
{
    return in.len >= 4 && (in.ptr[0] & 0xf0) == 0x50 && in.ptr[1] == 0x2a && in.ptr[2] == 0x4d &&
           in.ptr[3] == 0x18;
}

static const struct format *detect(struct slice in)
{
    const struct format *f = formats;

    if (is_skippable(in))
        return &formats[1];
    while (f->magic_len && (in.len < f->magic_len || memcmp(in.ptr, f->magic, f->magic_len) != 0))
        f++;
    return f;
}

static int fill(struct unpack *u, struct error *err)
{
    uint64_t left = u->blob->size - u->in_total;
    size_t len = left < UNPACK_CHUNK ? (size_t)left : UNPACK_CHUNK;

    if (len == 0)
        return 0;
    if (fd_pread_full(u->blob->fd, u->in_buf, len, (off_t)(u->blob->offset + u->in_total),
                      u->blob->name, err) < 0)
        return -1;
    u->in_total += len;
    u->in = slice_of(u->in_buf, len);
    if (u->in_hash)
        hash_update(u->in_hash, u->in);
    return 0;
}

struct unpack *unpack_new(const struct blob *b, const enum hash_alg *packed,
                          const enum hash_alg *unpacked, uint64_t max, struct error *err)
{
    struct unpack *u = xcalloc(1, sizeof(*u));

    u->blob = b;
    u->max = max ? max : UNPACK_MAX;
    u->in_buf = xmalloc(UNPACK_CHUNK);
    if (packed) {
        u->in_alg = *packed;
        u->in_hash = hash_new(*packed);
    }
    if (fill(u, err) < 0)
        goto fail;
    u->format = detect(u->in);
    u->same = !u->format->magic_len && packed && unpacked && *packed == *unpacked;
    if (unpacked) {
        u->out_alg = *unpacked;
        if (!u->same)
            u->out_hash = hash_new(*unpacked);
    }
    if (!u->format->magic_len)
        return u;
    if (!u->format->start) {
        error_set(err, ERR_UNSUPPORTED, "%s: compressed with %s, which layers cannot be", b->name,
                  u->format->name);
        goto fail;
    }
    u->out_buf = xmalloc(UNPACK_CHUNK);
    u->started = true;
    if (u->format->start(u, err) == 0)
        return u;
fail:
    unpack_free(u);
    return NULL;
}

static int check_size(struct unpack *u, size_t more, struct error *err)
{
    u->out_total += more;
    if (u->out_total > u->max) {
        error_set(err, ERR_LIMIT, "%s: unpacks to more than %llu bytes", u->blob->name,
                  (unsigned long long)u->max);
        return error_hint(err, "set CAPSULE_IMAGE_MAX to a larger number of bytes if the image is "
                               "to be trusted");
    }
    if (u->out_total > UNPACK_RATIO_FROM && u->out_total / UNPACK_RATIO_MAX > u->in_total)
        return error_set(
            err, ERR_LIMIT, "%s: looks like a decompression bomb: %llu bytes out of %llu so far",
            u->blob->name, (unsigned long long)u->out_total, (unsigned long long)u->in_total);
    return 0;
}

static int read_plain(struct unpack *u, struct slice *out, struct error *err)
{
    if (u->in.len == 0 && fill(u, err) < 0)
        return -1;
    *out = u->in;
    u->in = slice_of(NULL, 0);
    if (u->out_hash)
        hash_update(u->out_hash, *out);
    return check_size(u, out->len, err);
}

int unpack_read(struct unpack *u, struct slice *out, struct error *err)
{
    enum step step;

    if (!u->format->magic_len)
        return read_plain(u, out, err);
    u->out_len = 0;
    while (u->out_len < UNPACK_CHUNK) {
        size_t before = u->out_len;

        if (u->in.len == 0 && fill(u, err) < 0)
            return -1;
        if (u->in.len == 0 && u->ended)
            break;
        if (u->in.len && u->ended && detect(u->in) != u->format && u->in.len >= 4)
            return error_set(err, ERR_INVALID, "%s: bytes behind the end of the %s stream",
                             u->blob->name, u->format->name);
        if (u->format->step(u, &step, err) < 0)
            return -1;
        u->ended = step == STEP_END;
        /* No input is left, and what was buffered inside has come out. */
        if (u->in.len == 0 && u->in_total == u->blob->size && !u->ended && u->out_len == before)
            return error_set(err, ERR_INVALID, "%s: the %s stream ends early", u->blob->name,
                             u->format->name);
    }
    *out = slice_of(u->out_buf, u->out_len);
    if (u->out_hash)
        hash_update(u->out_hash, *out);
    return check_size(u, out->len, err);
}

int unpack_drain(struct unpack *u, struct error *err)
{
    struct slice s;

    do
        if (unpack_read(u, &s, err) < 0)
            return -1;
    while (s.len);
    return 0;
}

void unpack_digests(struct unpack *u, struct digest *packed, struct digest *unpacked)
{
    if (u->in_hash) {
        *packed = (struct digest){.alg = u->in_alg};
        hash_final(u->in_hash, packed->bytes);
    }
    if (u->same) {
        *unpacked = *packed;
    } else if (u->out_hash) {
        *unpacked = (struct digest){.alg = u->out_alg};
        hash_final(u->out_hash, unpacked->bytes);
    }
}

bool unpack_is_plain(const struct unpack *u)
{
    return !u->format->magic_len;
}

void unpack_free(struct unpack *u)
{
    if (!u)
        return;
    if (u->started)
        u->format->stop(u);
    hash_free(u->in_hash);
    hash_free(u->out_hash);
    free(u->in_buf);
    free(u->out_buf);
    free(u);
}
