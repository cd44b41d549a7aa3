#include "crypto/rfc6979.h"

#include "crypto/ossl.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#define OCTETS_MAX ((RFC6979_QLEN_MAX + 7) / 8)

static const EVP_MD *md_of(enum hash_alg alg)
{
    if (alg == HASH_SHA256)
        return EVP_sha256();
    return alg == HASH_SHA384 ? EVP_sha384() : EVP_sha512();
}

/* out = HMAC(key, input); `out` may be the generator's own key or value. */
static void mac(const struct rfc6979 *g, const uint8_t *input, size_t len, uint8_t *out)
{
    uint8_t result[HASH_LEN_MAX];

    ossl_must(HMAC(md_of(g->alg), g->key, (int)hash_len(g->alg), input, len, result, NULL) != NULL);
    memcpy(out, result, hash_len(g->alg));
    mem_wipe(result, sizeof(result));
}

/* Steps d to g: K = HMAC(K, V || tag || seed); V = HMAC(K, V). */
static void stir(struct rfc6979 *g, uint8_t tag, const uint8_t *seed, size_t seed_len)
{
    uint8_t input[HASH_LEN_MAX + 1 + 2 * OCTETS_MAX];
    size_t len = hash_len(g->alg);

    memcpy(input, g->value, len);
    input[len] = tag;
    if (seed_len)
        memcpy(input + len + 1, seed, seed_len);
    mac(g, input, len + 1 + seed_len, g->key);
    mac(g, g->value, len, g->value);
    mem_wipe(input, sizeof(input));
}

void rfc6979_init(struct rfc6979 *g, enum hash_alg alg, size_t qlen, const uint8_t *secret,
                  const uint8_t *digest)
{
    size_t octets = (qlen + 7) / 8;
    uint8_t seed[2 * OCTETS_MAX];

    ossl_must(octets <= OCTETS_MAX);
    g->alg = alg;
    g->qlen = qlen;
    memset(g->value, 0x01, sizeof(g->value));
    memset(g->key, 0x00, sizeof(g->key));
    memcpy(seed, secret, octets);
    memcpy(seed + octets, digest, octets);
    stir(g, 0x00, seed, 2 * octets);
    stir(g, 0x01, seed, 2 * octets);
    mem_wipe(seed, sizeof(seed));
}

void rfc6979_next(struct rfc6979 *g, uint8_t *candidate)
{
    size_t octets = (g->qlen + 7) / 8, len = hash_len(g->alg), done = 0;
    unsigned int drop = (unsigned int)(octets * 8 - g->qlen);
    uint8_t carry = 0;

    while (done < octets) {
        size_t part = octets - done < len ? octets - done : len;

        mac(g, g->value, len, g->value);
        memcpy(candidate + done, g->value, part);
        done += part;
    }
    /* bits2int keeps the leftmost qlen bits: shift the whole string right by the rest. */
    for (size_t i = 0; drop && i < octets; i++) {
        uint8_t byte = candidate[i];

        candidate[i] = (uint8_t)(carry << (8 - drop) | byte >> drop);
        carry = byte;
    }
    stir(g, 0x00, NULL, 0); /* step h.3, so that the next call gives another one */
}

void rfc6979_wipe(struct rfc6979 *g)
{
    mem_wipe(g, sizeof(*g));
}
