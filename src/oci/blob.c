#include "oci/blob.h"

#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

int digest_parse(struct slice text, struct digest *out, struct error *err)
{
    static const struct {
        const char *prefix;
        enum hash_alg alg;
    } kinds[] = {{"sha256:", HASH_SHA256}, {"sha512:", HASH_SHA512}};

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        size_t skip = strlen(kinds[i].prefix);

        if (text.len < skip || memcmp(text.ptr, kinds[i].prefix, skip) != 0)
            continue;
        for (size_t j = skip; j < text.len; j++)
            if (text.ptr[j] >= 'A' && text.ptr[j] <= 'F')
                goto bad;
        memset(out, 0, sizeof(*out));
        out->alg = kinds[i].alg;
        if (hex_decode(slice_of(text.ptr + skip, text.len - skip), out->bytes, hash_len(out->alg)) <
            0)
            goto bad;
        return 0;
    }
    return error_set(err, ERR_UNSUPPORTED, "digest %.*s: not a sha256 or sha512 digest",
                     (int)(text.len > 80 ? 80 : text.len), (const char *)text.ptr);
bad:
    return error_set(err, ERR_INVALID, "digest %.*s: not a well-formed digest",
                     (int)(text.len > 140 ? 140 : text.len), (const char *)text.ptr);
}

const char *digest_text(const struct digest *d, char *out)
{
    memcpy(out, d->alg == HASH_SHA256 ? "sha256:" : "sha512:", 7);
    hex_encode(slice_of(d->bytes, hash_len(d->alg)), out + 7);
    return out;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
    return a->alg == b->alg && memcmp(a->bytes, b->bytes, hash_len(a->alg)) == 0;
}

int digest_mismatch(const char *what, const struct digest *want, const struct digest *got,
                    struct error *err)
{
    char a[DIGEST_TEXT_MAX], b[DIGEST_TEXT_MAX];

    return error_set(err, ERR_INVALID, "%s: the digest does not match (want %s, got %s)", what,
                     digest_text(want, a), digest_text(got, b));
}

void blob_close(struct blob *b)
{
    if (b->own)
        fd_close(&b->fd);
    free(b->name);
    *b = BLOB_NONE;
}

int blob_open_at(int dirfd, const char *path, const char *name, struct blob *out, struct error *err)
{
    struct stat st;
    int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return error_sys(err, errno, "opening %s", name);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return error_set(err, ERR_INVALID, "%s: not a regular file", name);
    }
    *out =
        (struct blob){.fd = fd, .own = true, .size = (uint64_t)st.st_size, .name = xstrdup(name)};
    return 0;
}

int blob_read(const struct blob *b, const struct digest *want, struct buf *out, struct error *err)
{
    uint8_t *to = b->size <= out->max ? buf_reserve(out, (size_t)b->size) : NULL;
    struct digest got;

    if (!to)
        return error_set(err, ERR_LIMIT, "%s: %llu bytes, more than the limit of %zu", b->name,
                         (unsigned long long)b->size, out->max);
    if (fd_pread_full(b->fd, to, (size_t)b->size, (off_t)b->offset, b->name, err) < 0)
        return -1;
    if (want) {
        got = (struct digest){.alg = want->alg};
        hash_once(want->alg, slice_of(to, (size_t)b->size), got.bytes);
        if (!digest_equal(want, &got))
            return digest_mismatch(b->name, want, &got, err);
    }
    out->len += (size_t)b->size;
    return 0;
}
