/* SHA-2 digests (FIPS 180-4), incremental and in one go. */
#ifndef CAPSULE_CRYPTO_HASH_H
#define CAPSULE_CRYPTO_HASH_H

#include "base/slice.h"

enum hash_alg {
    HASH_SHA256,
    HASH_SHA384,
    HASH_SHA512
};

#define SHA256_LEN   32
#define SHA384_LEN   48
#define SHA512_LEN   64
#define HASH_LEN_MAX 64

/* Bytes of a digest of this kind. */
size_t hash_len(enum hash_alg alg);

/* A running digest. One thread at a time; different ones may run side by side. */
struct hash;
struct hash *hash_new(enum hash_alg alg) MUST_USE;
void hash_update(struct hash *h, struct slice bytes);
/* Writes hash_len() bytes and starts over empty. */
void hash_final(struct hash *h, uint8_t *out);
void hash_free(struct hash *h);
static inline void cleanup_hash(struct hash **h)
{
    hash_free(*h);
}
#define AUTO_HASH CLEANUP(cleanup_hash)

void hash_once(enum hash_alg alg, struct slice bytes, uint8_t *out);

#endif
