#include "crypto/aead.h"

#include "crypto/ossl.h"

#include <openssl/evp.h>
#include <pthread.h>

static EVP_CIPHER *cipher;

/* A fetch costs as much as a short message; one serves the process. */
static void fetch(void)
{
    cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    ossl_must(cipher != NULL);
}

/* Freeing the context wipes its key schedule. */
static EVP_CIPHER_CTX *begin(const uint8_t *key, const uint8_t *nonce, struct slice aad, int seal)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    EVP_CIPHER_CTX *ctx;
    int len;

    pthread_once(&once, fetch);
    ctx = EVP_CIPHER_CTX_new();
    ossl_must(ctx && EVP_CipherInit_ex2(ctx, cipher, key, nonce, seal, NULL) == 1);
    if (aad.len)
        ossl_must(EVP_CipherUpdate(ctx, NULL, &len, aad.ptr, (int)aad.len) == 1);
    return ctx;
}

static void update(EVP_CIPHER_CTX *ctx, uint8_t *to, struct slice from)
{
    int len;

    if (from.len)
        ossl_must(EVP_CipherUpdate(ctx, to, &len, from.ptr, (int)from.len) == 1 &&
                  (size_t)len == from.len);
}

int aes256_gcm_seal(const uint8_t *key, const uint8_t *nonce, struct slice aad,
                    struct slice plaintext, struct buf *out)
{
    EVP_CIPHER_CTX *ctx;
    uint8_t *to;
    int len;

    if (aad.len > AES256_GCM_TEXT_MAX || plaintext.len > AES256_GCM_TEXT_MAX)
        return -1;
    to = buf_reserve(out, plaintext.len + AES256_GCM_TAG_LEN);
    if (!to)
        return -1;
    ctx = begin(key, nonce, aad, 1);
    update(ctx, to, plaintext);
    to += plaintext.len;
    ossl_must(EVP_CipherFinal_ex(ctx, to, &len) == 1 &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, AES256_GCM_TAG_LEN, to) == 1);
    EVP_CIPHER_CTX_free(ctx);
    out->len += plaintext.len + AES256_GCM_TAG_LEN;
    return 0;
}

int aes256_gcm_open(const uint8_t *key, const uint8_t *nonce, struct slice aad, struct slice sealed,
                    struct buf *out)
{
    uint8_t tag[AES256_GCM_TAG_LEN], *to;
    EVP_CIPHER_CTX *ctx;
    struct slice body;
    bool good;
    int len;

    if (sealed.len < AES256_GCM_TAG_LEN || aad.len > AES256_GCM_TEXT_MAX ||
        sealed.len > AES256_GCM_TEXT_MAX + AES256_GCM_TAG_LEN)
        return -1;
    body = slice_of(sealed.ptr, sealed.len - AES256_GCM_TAG_LEN);
    memcpy(tag, sealed.ptr + body.len, sizeof(tag)); /* the call below wants it writable */
    to = buf_reserve(out, body.len);
    if (!to)
        return -1;
    ctx = begin(key, nonce, aad, 0);
    update(ctx, to, body);
    ossl_must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, sizeof(tag), tag) == 1);
    good = EVP_CipherFinal_ex(ctx, to + body.len, &len) == 1;
    EVP_CIPHER_CTX_free(ctx);
    if (!good) {
        mem_wipe(to, body.len);
        return -1;
    }
    out->len += body.len;
    return 0;
}
