/*
 * The enclave's P-384 encryption key: making it, agreeing on secrets with it, and the encodings of
 * public keys (spec/capsule-api.md sections 4 and 8.2, RFC 5480).
 */
#ifndef CAPSULE_CRYPTO_P384_H
#define CAPSULE_CRYPTO_P384_H

#include "base/slice.h"
#include "crypto/entropy.h"

#define P384_SECRET_LEN 48
#define P384_POINT_LEN  97 /* SEC1 uncompressed: 04 || X || Y */
#define P384_SPKI_LEN   120
#define P384_SHARED_LEN 48

/* A private key; wiped when freed. */
struct p384_key;
void p384_key_free(struct p384_key *key);
/* The big-endian scalar; NULL when it is 0 or not below the group order. */
struct p384_key *p384_key_from_bytes(const uint8_t *secret) MUST_USE;
/* Draws 48 bytes until they are a key, at most ENTROPY_DRAWS_MAX times. */
struct p384_key *p384_key_draw(const struct entropy *from, struct error *err);
/* Writes P384_POINT_LEN bytes. */
void p384_key_point(const struct p384_key *key, uint8_t *out);
/*
 * ECDH: writes the x coordinate of the shared point, P384_SHARED_LEN big-endian bytes, leading
 * zeros kept, which the caller wipes. `point` is uncompressed. -1 when it is not on the curve.
 * Constant time in the key. Threads may share the key; costs them about half a millisecond.
 */
int p384_ecdh(const struct p384_key *key, const uint8_t *point, uint8_t *shared) MUST_USE;

/* Writes the DER SubjectPublicKeyInfo of a point, P384_SPKI_LEN bytes. */
void p384_point_spki(const uint8_t *point, uint8_t *out);
/* Appends the SPKI as PEM, label PUBLIC KEY, without a final newline; -1 when the buf is full. */
int p384_point_pem(const uint8_t *point, struct buf *out) MUST_USE;

/*
 * The point of a peer's SubjectPublicKeyInfo: id-ecPublicKey, secp384r1, uncompressed (120 bytes)
 * or compressed (72 bytes), and nothing else. Writes P384_POINT_LEN bytes; ERR_INVALID when the
 * form is another or the point is not on the curve. Public input: not constant time.
 */
int p384_point_from_spki(struct slice der, uint8_t *point, struct error *err);

#endif
