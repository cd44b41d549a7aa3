/*
 * Blobs: a run of bytes in a file of the host - a file of an OCI layout, a member of an archive -
 * with the digest that somebody promised for it.
 */
#ifndef CAPSULE_OCI_BLOB_H
#define CAPSULE_OCI_BLOB_H

#include "base/error.h"
#include "base/file.h"
#include "base/slice.h"
#include "crypto/hash.h"

/* Largest JSON document (manifest, index, configuration); the OCI specification asks for 4 MiB. */
#define BLOB_JSON_MAX ((size_t)4 << 20)

/* A digest of the OCI image specification: "sha256:HEX" or "sha512:HEX". */
struct digest {
    enum hash_alg alg;
    uint8_t bytes[HASH_LEN_MAX];
};
#define DIGEST_TEXT_MAX (7 + 2 * SHA512_LEN + 1)

/* Strict: lower-case hex of the right length; other algorithms are ERR_UNSUPPORTED. */
int digest_parse(struct slice text, struct digest *out, struct error *err);
/* Writes "sha256:HEX" with a NUL into `out` (DIGEST_TEXT_MAX bytes) and returns it. */
const char *digest_text(const struct digest *d, char *out);
bool digest_equal(const struct digest *a, const struct digest *b);

struct blob {
    int fd; /* a regular file */
    bool own;
    uint64_t offset, size;
    char *name; /* for messages; owned */
};
#define BLOB_NONE ((struct blob){.fd = -1})
void blob_close(struct blob *b);
#define AUTO_BLOB CLEANUP(blob_close)

/* Opens a whole regular file relative to a directory (AT_FDCWD too). */
int blob_open_at(int dirfd, const char *path, const char *name, struct blob *out,
                 struct error *err);
/*
 * Appends the whole blob to `out`; more than out->max is ERR_LIMIT. With `want` the digest is
 * checked (ERR_INVALID).
 */
int blob_read(const struct blob *b, const struct digest *want, struct buf *out, struct error *err);
/* The error for a digest that does not match; returns -1. */
int digest_mismatch(const char *what, const struct digest *want, const struct digest *got,
                    struct error *err);

#endif
