#include "crypto/hkdf.h"

#include "crypto/ossl.h"

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <pthread.h>

static EVP_KDF *hkdf;

static void fetch(void)
{
    hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    ossl_must(hkdf != NULL);
}

/* OpenSSL only reads the bytes. It takes no NULL for an empty string. */
static OSSL_PARAM octets(const char *name, struct slice bytes)
{
    const void *ptr = bytes.len ? bytes.ptr : (const void *)"";

    return OSSL_PARAM_construct_octet_string(name, (void *)(uintptr_t)ptr, bytes.len);
}

void hkdf_sha256(struct slice ikm, struct slice salt, struct slice info, uint8_t *out, size_t len)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        octets(OSSL_KDF_PARAM_KEY, ikm),
        octets(OSSL_KDF_PARAM_SALT, salt),
        octets(OSSL_KDF_PARAM_INFO, info),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF_CTX *ctx;

    pthread_once(&once, fetch);
    ctx = EVP_KDF_CTX_new(hkdf);
    ossl_must(ctx && EVP_KDF_derive(ctx, out, len, params) == 1);
    EVP_KDF_CTX_free(ctx); /* wipes its copies, as the derivation wipes the PRK */
}
