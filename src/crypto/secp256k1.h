/*
 * Ethereum keys on secp256k1 (SEC 2), over libsecp256k1. The prefix is k256_, because the library
 * owns the names that begin with secp256k1_. Encodings: spec/capsule-api.md section 4.
 */
#ifndef CAPSULE_CRYPTO_SECP256K1_H
#define CAPSULE_CRYPTO_SECP256K1_H

#include "base/slice.h"
#include "crypto/entropy.h"

#define K256_SECRET_LEN 32
#define K256_POINT_LEN  65 /* SEC1 uncompressed: 04 || X || Y */
#define K256_SPKI_LEN   88

/*
 * A private key with a context of its own, blinded by kernel randomness, so that several threads
 * may use one key. Wiped when freed.
 */
struct k256_key;
void k256_key_free(struct k256_key *key);
/* The big-endian scalar; NULL when it is 0 or not below the group order. */
struct k256_key *k256_key_from_bytes(const uint8_t *secret) MUST_USE;
/* Draws 32 bytes until they are a key, at most ENTROPY_DRAWS_MAX times. */
struct k256_key *k256_key_draw(const struct entropy *from, struct error *err);
/* Writes K256_POINT_LEN bytes. */
void k256_key_point(const struct k256_key *key, uint8_t *out);

/* Writes the DER SubjectPublicKeyInfo of a point, K256_SPKI_LEN bytes. */
void k256_point_spki(const uint8_t *point, uint8_t *out);
/* Appends the SPKI as PEM, label PUBLIC KEY, without a final newline; -1 when the buf is full. */
int k256_point_pem(const uint8_t *point, struct buf *out) MUST_USE;

#define K256_DIGEST_LEN    32
#define K256_SIGNATURE_LEN 65 /* r || s || yParity, which is 0 or 1 */

/*
 * Signs a 32-byte digest: RFC 6979 with HMAC-SHA-256 and no extra entropy, s at most n/2. Writes
 * K256_SIGNATURE_LEN bytes; equal input gives equal bytes. -1 in the case of about 2^-127 in which
 * r was reduced, which yParity cannot express. Threads may share the key.
 */
int k256_sign(const struct k256_key *key, const uint8_t *digest, uint8_t *out) MUST_USE;
/* True when s is above n/2: the twin of a valid signature, which EIP-2 forbids. */
bool k256_signature_is_high(const uint8_t *signature) MUST_USE;
/*
 * The point of the key that made the signature (SEC 1 section 4.1.6); writes K256_POINT_LEN bytes.
 * -1 when r or s is out of range, s above n/2 (EIP-2), the last byte not 0 or 1, or there is no
 * such point. Public input only: not constant time.
 */
int k256_recover(const uint8_t *digest, const uint8_t *signature, uint8_t *point) MUST_USE;

#endif
