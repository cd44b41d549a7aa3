/*
 * COSE_Sign1 (RFC 9052 section 4.2) as attestation documents and image signatures use it: one
 * protected header, the algorithm; the payload inside; ECDSA signatures as fixed-width r || s.
 */
#ifndef CAPSULE_ATTEST_COSE_H
#define CAPSULE_ATTEST_COSE_H

#include "codec/cbor.h"
#include "crypto/ecdsa.h"

#define COSE_TAG_SIGN1 18

/* The three parts as received; slices into the input. */
struct cose_sign1 {
    struct slice protected; /* content of the byte string */
    struct slice payload;
    struct slice signature;
};

/*
 * Takes an item apart: optional tag 18, then an array of bytes, map, bytes, bytes. The content of
 * the unprotected map is ignored. Lengths are for the caller to judge.
 */
int cose_sign1_read(const struct cbor_item *item, struct cose_sign1 *out, struct error *err);
/* The algorithm number, when the protected header is exactly {1: number}. */
int cose_sign1_alg(const struct cose_sign1 *sign1, int64_t *alg, struct error *err);
/* True when the signature verifies with this key over the bytes as received. */
bool cose_sign1_verify(const struct cose_sign1 *sign1, const struct ecdsa_pub *pub);
/* Appends an untagged COSE_Sign1 over `payload`, signed with the algorithm of the key's curve. */
int cose_sign1_write(struct slice payload, const struct ecdsa_key *key, struct buf *out,
                     struct error *err);

#endif
