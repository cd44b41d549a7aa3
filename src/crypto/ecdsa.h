/*
 * ECDSA on the NIST curves (FIPS 186-5) with signatures as fixed-width r || s, as COSE has them
 * (RFC 9053 section 2.1): ES256 on P-256 with SHA-256, ES384 on P-384 with SHA-384, ES512 on P-521
 * with SHA-512. Nonces are deterministic (RFC 6979), so equal inputs give equal signatures.
 */
#ifndef CAPSULE_CRYPTO_ECDSA_H
#define CAPSULE_CRYPTO_ECDSA_H

#include "base/error.h"
#include "base/slice.h"

enum ecdsa_curve {
    ECDSA_P256,
    ECDSA_P384,
    ECDSA_P521
};

#define ECDSA_SIGNATURE_MAX 132

/* Bytes of a signature: 64, 96 or 132. */
size_t ecdsa_signature_len(enum ecdsa_curve curve);
/* The COSE algorithm number: -7, -35, -36. */
int ecdsa_cose_alg(enum ecdsa_curve curve);

/* A private key; wiped when freed. */
struct ecdsa_key;
void ecdsa_key_free(struct ecdsa_key *key);
/* A fresh key from the library's random generator. */
struct ecdsa_key *ecdsa_key_generate(enum ecdsa_curve curve, struct error *err);
/* Reads an unencrypted PEM key (SEC1 or PKCS#8). Other curves and kinds: ERR_UNSUPPORTED. */
struct ecdsa_key *ecdsa_key_from_pem(struct slice pem, struct error *err);
/* Appends the key as PKCS#8 PEM; `out` should be secret. */
int ecdsa_key_to_pem(const struct ecdsa_key *key, struct buf *out, struct error *err);
enum ecdsa_curve ecdsa_key_curve(const struct ecdsa_key *key);
/* Writes the private scalar, big-endian, half as long as a signature. The caller wipes it. */
void ecdsa_key_scalar(const struct ecdsa_key *key, uint8_t *out);
/* Signs the curve's digest of `message`; writes ecdsa_signature_len() bytes. */
int ecdsa_sign(const struct ecdsa_key *key, struct slice message, uint8_t *signature,
               struct error *err);

/* A public key. */
struct ecdsa_pub;
void ecdsa_pub_free(struct ecdsa_pub *pub);
struct ecdsa_pub *ecdsa_pub_of_key(const struct ecdsa_key *key);
/* From a DER SubjectPublicKeyInfo (RFC 5480). */
struct ecdsa_pub *ecdsa_pub_from_spki(struct slice der, struct error *err);
/* The subject key of a DER certificate (RFC 5280); the certificate itself is not checked. */
struct ecdsa_pub *ecdsa_pub_from_cert(struct slice der, struct error *err);
enum ecdsa_curve ecdsa_pub_curve(const struct ecdsa_pub *pub);
bool ecdsa_pub_equal(const struct ecdsa_pub *a, const struct ecdsa_pub *b);
/* Appends the DER SubjectPublicKeyInfo. */
int ecdsa_pub_to_spki(const struct ecdsa_pub *pub, struct buf *out, struct error *err);
/*
 * True when `signature` is of the right length, r and s are in 1..n-1 and it verifies over the
 * curve's digest of `message`. High s is accepted.
 */
bool ecdsa_verify(const struct ecdsa_pub *pub, struct slice message, struct slice signature);

#endif
