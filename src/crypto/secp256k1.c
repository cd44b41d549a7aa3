#include "crypto/secp256k1.h"

#include "crypto/ossl.h"
#include "crypto/pem.h"

#include <openssl/crypto.h>
#include <secp256k1.h>
#include <secp256k1_recovery.h>

struct k256_key {
    secp256k1_context *ctx;
    uint8_t *secret; /* in guarded memory */
    uint8_t point[K256_POINT_LEN];
};

void k256_key_free(struct k256_key *key)
{
    if (!key)
        return;
    secp256k1_context_destroy(key->ctx);
    OPENSSL_secure_clear_free(key->secret, K256_SECRET_LEN);
    free(key);
}

/* Blinding protects the scalar from side channels; without kernel randomness nothing is safe. */
static secp256k1_context *blinded_context(void)
{
    secp256k1_context *ctx = secp256k1_context_create(SECP256K1_CONTEXT_NONE);
    uint8_t seed[32];

    ossl_must(ctx && entropy_kernel.fill(NULL, seed, sizeof(seed), NULL) == 0 &&
              secp256k1_context_randomize(ctx, seed));
    mem_wipe(seed, sizeof(seed));
    return ctx;
}

struct k256_key *k256_key_from_bytes(const uint8_t *secret)
{
    struct k256_key *key = xcalloc(1, sizeof(*key));
    size_t len = K256_POINT_LEN;
    secp256k1_pubkey pub;

    key->secret = OPENSSL_secure_zalloc(K256_SECRET_LEN);
    ossl_must(key->secret != NULL);
    key->ctx = blinded_context();
    if (!secp256k1_ec_seckey_verify(key->ctx, secret) ||
        !secp256k1_ec_pubkey_create(key->ctx, &pub, secret)) {
        k256_key_free(key);
        return NULL;
    }
    memcpy(key->secret, secret, K256_SECRET_LEN);
    secp256k1_ec_pubkey_serialize(key->ctx, key->point, &len, &pub, SECP256K1_EC_UNCOMPRESSED);
    return key;
}

struct k256_key *k256_key_draw(const struct entropy *from, struct error *err)
{
    uint8_t secret[K256_SECRET_LEN];
    struct k256_key *key = NULL;
    bool failed = false;

    for (int i = 0; i < ENTROPY_DRAWS_MAX && !key && !failed; i++) {
        failed = from->fill(from->arg, secret, sizeof(secret), err) < 0;
        if (!failed)
            key = k256_key_from_bytes(secret);
    }
    mem_wipe(secret, sizeof(secret));
    if (!key && !failed)
        error_set(err, ERR_INTERNAL, "no secp256k1 key in %d draws: the randomness is broken",
                  ENTROPY_DRAWS_MAX);
    return key;
}

void k256_key_point(const struct k256_key *key, uint8_t *out)
{
    memcpy(out, key->point, K256_POINT_LEN);
}

void k256_point_spki(const uint8_t *point, uint8_t *out)
{
    static const uint8_t head[K256_SPKI_LEN - K256_POINT_LEN] = {
        0x30, 0x56, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
        0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a, 0x03, 0x42, 0x00};

    memcpy(out, head, sizeof(head));
    memcpy(out + sizeof(head), point, K256_POINT_LEN);
}

int k256_point_pem(const uint8_t *point, struct buf *out)
{
    uint8_t spki[K256_SPKI_LEN];

    k256_point_spki(point, spki);
    return pem_encode("PUBLIC KEY", slice_of(spki, sizeof(spki)), out);
}

int k256_sign(const struct k256_key *key, const uint8_t *digest, uint8_t *out)
{
    secp256k1_ecdsa_recoverable_signature sig;
    int parity = 0;

    ossl_must(
        secp256k1_ecdsa_sign_recoverable(key->ctx, &sig, digest, key->secret,
                                         secp256k1_nonce_function_rfc6979, NULL) &&
        secp256k1_ecdsa_recoverable_signature_serialize_compact(key->ctx, out, &parity, &sig));
    out[K256_SIGNATURE_LEN - 1] = (uint8_t)parity;
    return parity > 1 ? -1 : 0;
}

bool k256_signature_is_high(const uint8_t *signature)
{
    secp256k1_ecdsa_signature plain;

    return secp256k1_ecdsa_signature_parse_compact(secp256k1_context_static, &plain, signature) &&
           secp256k1_ecdsa_signature_normalize(secp256k1_context_static, NULL, &plain);
}

int k256_recover(const uint8_t *digest, const uint8_t *signature, uint8_t *point)
{
    const secp256k1_context *ctx = secp256k1_context_static;
    secp256k1_ecdsa_recoverable_signature sig;
    size_t len = K256_POINT_LEN;
    secp256k1_ecdsa_signature plain;
    secp256k1_pubkey pub;

    if (signature[K256_SIGNATURE_LEN - 1] > 1 ||
        !secp256k1_ecdsa_recoverable_signature_parse_compact(ctx, &sig, signature,
                                                             signature[K256_SIGNATURE_LEN - 1]) ||
        !secp256k1_ecdsa_recoverable_signature_convert(ctx, &plain, &sig) ||
        secp256k1_ecdsa_signature_normalize(ctx, NULL, &plain) ||
        !secp256k1_ecdsa_recover(ctx, &pub, &sig, digest))
        return -1;
    return secp256k1_ec_pubkey_serialize(ctx, point, &len, &pub, SECP256K1_EC_UNCOMPRESSED) ? 0
                                                                                            : -1;
}
