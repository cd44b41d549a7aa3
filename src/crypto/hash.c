#include "crypto/hash.h"

#include <openssl/evp.h>

struct hash {
    EVP_MD_CTX *ctx;
    const EVP_MD *md;
};

static const EVP_MD *md_of(enum hash_alg alg)
{
    switch (alg) {
    case HASH_SHA256:
        return EVP_sha256();
    case HASH_SHA384:
        return EVP_sha384();
    case HASH_SHA512:
        break;
    }
    return EVP_sha512();
}

size_t hash_len(enum hash_alg alg)
{
    return (size_t)EVP_MD_get_size(md_of(alg));
}

/* These calls fail only when memory is short or the library is broken: nothing can go on then. */
static void must(int ok)
{
    if (!ok)
        abort();
}

struct hash *hash_new(enum hash_alg alg)
{
    struct hash *h = xcalloc(1, sizeof(*h));

    h->md = md_of(alg);
    h->ctx = EVP_MD_CTX_new();
    must(h->ctx && EVP_DigestInit_ex(h->ctx, h->md, NULL));
    return h;
}

void hash_update(struct hash *h, struct slice bytes)
{
    must(EVP_DigestUpdate(h->ctx, bytes.ptr, bytes.len));
}

void hash_final(struct hash *h, uint8_t *out)
{
    must(EVP_DigestFinal_ex(h->ctx, out, NULL));
    must(EVP_DigestInit_ex(h->ctx, h->md, NULL));
}

void hash_free(struct hash *h)
{
    if (!h)
        return;
    EVP_MD_CTX_free(h->ctx);
    free(h);
}

void hash_once(enum hash_alg alg, struct slice bytes, uint8_t *out)
{
    must(EVP_Digest(bytes.ptr, bytes.len, out, NULL, md_of(alg), NULL));
}
