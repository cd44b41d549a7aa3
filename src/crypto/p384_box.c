#include "crypto/p384_box.h"

#include "crypto/aead.h"
#include "crypto/hkdf.h"

#define SALT_LEN (2 * P384_POINT_LEN + P384_BOX_NONCE_LEN)

/* Writes AES256_GCM_KEY_LEN bytes, which the caller wipes. */
static int derive(const struct p384_key *key, const uint8_t *peer_point, const uint8_t *nonce,
                  uint8_t *out)
{
    uint8_t own[P384_POINT_LEN], shared[P384_SHARED_LEN], salt[SALT_LEN];
    bool own_first;

    p384_key_point(key, own);
    own_first = memcmp(own, peer_point, P384_POINT_LEN) <= 0;
    if (p384_ecdh(key, peer_point, shared) < 0)
        return -1;
    memcpy(salt, own_first ? own : peer_point, P384_POINT_LEN);
    memcpy(salt + P384_POINT_LEN, own_first ? peer_point : own, P384_POINT_LEN);
    memcpy(salt + 2 * P384_POINT_LEN, nonce, P384_BOX_NONCE_LEN);
    hkdf_sha256(slice_of(shared, sizeof(shared)), slice_of(salt, sizeof(salt)),
                slice_str("capsule-ecdh-aes256gcm-v1"), out, AES256_GCM_KEY_LEN);
    mem_wipe(shared, sizeof(shared));
    return 0;
}

int p384_box_seal(const struct p384_key *key, const uint8_t *peer_point, const uint8_t *nonce,
                  struct slice plaintext, struct buf *out)
{
    const struct slice no_aad = {0};
    uint8_t secret[AES256_GCM_KEY_LEN];
    int ret;

    if (derive(key, peer_point, nonce, secret) < 0)
        return -1;
    ret = aes256_gcm_seal(secret, nonce, no_aad, plaintext, out);
    mem_wipe(secret, sizeof(secret));
    return ret;
}

int p384_box_open(const struct p384_key *key, const uint8_t *peer_point, const uint8_t *nonce,
                  struct slice sealed, struct buf *out)
{
    const struct slice no_aad = {0};
    uint8_t secret[AES256_GCM_KEY_LEN];
    int ret;

    if (derive(key, peer_point, nonce, secret) < 0)
        return -1;
    ret = aes256_gcm_open(secret, nonce, no_aad, sealed, out);
    mem_wipe(secret, sizeof(secret));
    return ret;
}
