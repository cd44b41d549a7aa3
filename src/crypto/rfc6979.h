/*
 * Deterministic nonces for DSA and ECDSA (RFC 6979 section 3.2): an HMAC generator seeded with the
 * private key and the digest of the message. Equal inputs give an equal sequence of candidates.
 */
#ifndef CAPSULE_CRYPTO_RFC6979_H
#define CAPSULE_CRYPTO_RFC6979_H

#include "crypto/hash.h"

#define RFC6979_QLEN_MAX 528 /* bits; P-521 is the largest order in use */

/* Secret throughout; rfc6979_wipe() ends its life. */
struct rfc6979 {
    enum hash_alg alg;
    size_t qlen; /* bits of the group order */
    uint8_t key[HASH_LEN_MAX];
    uint8_t value[HASH_LEN_MAX];
};

/*
 * Seeds the generator. `secret` is int2octets(x) and `digest` is bits2octets(H(m)), both
 * (qlen + 7) / 8 bytes.
 */
void rfc6979_init(struct rfc6979 *g, enum hash_alg alg, size_t qlen, const uint8_t *secret,
                  const uint8_t *digest);
/*
 * Writes the next candidate, (qlen + 7) / 8 bytes, big-endian, below 2^qlen. The caller takes it
 * when it lies in 1..q-1, else asks again.
 */
void rfc6979_next(struct rfc6979 *g, uint8_t *candidate);
void rfc6979_wipe(struct rfc6979 *g);

#endif
