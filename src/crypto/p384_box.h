/*
 * Messages between a P-384 key pair and its peer's (spec/capsule-api.md section 8.2): ECDH, then
 * HKDF-SHA-256 (RFC 5869) over both points and the nonce, then AES-256-GCM. The key is the same in
 * both directions and fresh for every nonce, which must never repeat between two keys.
 */
#ifndef CAPSULE_CRYPTO_P384_BOX_H
#define CAPSULE_CRYPTO_P384_BOX_H

#include "crypto/p384.h"

#define P384_BOX_NONCE_LEN 12
#define P384_BOX_TAG_LEN   16

/*
 * Appends ciphertext || tag. -1, with nothing appended, when the buf is full or the peer's point,
 * P384_POINT_LEN bytes as p384_point_from_spki() gives them, is not on the curve. Threads may share
 * the key; costs them about half a millisecond.
 */
int p384_box_seal(const struct p384_key *key, const uint8_t *peer_point, const uint8_t *nonce,
                  struct slice plaintext, struct buf *out) MUST_USE;
/*
 * Appends the plaintext, for which the buf should be secret. -1, with nothing appended, when the
 * tag does not fit the bytes, they are shorter than a tag, the point is not on the curve, or the
 * buf is full.
 */
int p384_box_open(const struct p384_key *key, const uint8_t *peer_point, const uint8_t *nonce,
                  struct slice sealed, struct buf *out) MUST_USE;

#endif
