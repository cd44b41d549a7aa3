/*
 * OpenSSL 3.0 has no deterministic ECDSA behind EVP, so the nonce comes from rfc6979.c and goes in
 * through the low-level calls, which 3.0 marks as deprecated. They are confined to this file.
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "crypto/ecdsa.h"

#include "crypto/hash.h"
#include "crypto/ossl.h"
#include "crypto/rfc6979.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#define ORDER_LEN_MAX (ECDSA_SIGNATURE_MAX / 2)

struct ecdsa_key {
    enum ecdsa_curve curve;
    EC_KEY *ec;
};

struct ecdsa_pub {
    enum ecdsa_curve curve;
    EC_KEY *ec;
};

static const struct curve {
    int nid;
    size_t order_bits;
    size_t order_len;
    enum hash_alg hash;
    int cose_alg;
} curves[] = {
    [ECDSA_P256] = {NID_X9_62_prime256v1, 256, 32, HASH_SHA256, -7},
    [ECDSA_P384] = {NID_secp384r1, 384, 48, HASH_SHA384, -35},
    [ECDSA_P521] = {NID_secp521r1, 521, 66, HASH_SHA512, -36},
};

size_t ecdsa_signature_len(enum ecdsa_curve curve)
{
    return 2 * curves[curve].order_len;
}

int ecdsa_cose_alg(enum ecdsa_curve curve)
{
    return curves[curve].cose_alg;
}

/* Finds the named curve of a key; keys that spell out their own parameters are refused. */
static int curve_of(const EC_KEY *ec, enum ecdsa_curve *out, struct error *err)
{
    int nid = EC_GROUP_get_curve_name(EC_KEY_get0_group(ec));

    for (size_t i = 0; i < ARRAY_LEN(curves); i++) {
        if (curves[i].nid == nid && EC_KEY_decoded_from_explicit_params(ec) == 0) {
            *out = (enum ecdsa_curve)i;
            return 0;
        }
    }
    error_set(err, ERR_UNSUPPORTED, "the key is on a curve that is not supported");
    return error_hint(err, "use a key on P-256, P-384 or P-521");
}

/* ---- private keys ---- */

void ecdsa_key_free(struct ecdsa_key *key)
{
    if (!key)
        return;
    EC_KEY_free(key->ec); /* wipes the scalar */
    free(key);
}

/* Takes over `ec`, also when it fails. */
static struct ecdsa_key *wrap_key(EC_KEY *ec, struct error *err)
{
    struct ecdsa_key *key;
    enum ecdsa_curve curve = ECDSA_P256;

    if (curve_of(ec, &curve, err) < 0) {
        EC_KEY_free(ec);
        return NULL;
    }
    if (EC_KEY_check_key(ec) != 1) {
        EC_KEY_free(ec);
        ossl_error(err, ERR_CRYPTO, "the private key is not consistent");
        return NULL;
    }
    key = xcalloc(1, sizeof(*key));
    key->curve = curve;
    key->ec = ec;
    return key;
}

struct ecdsa_key *ecdsa_key_generate(enum ecdsa_curve curve, struct error *err)
{
    EC_KEY *ec = EC_KEY_new_by_curve_name(curves[curve].nid);

    if (!ec || EC_KEY_generate_key(ec) != 1) {
        EC_KEY_free(ec);
        ossl_error(err, ERR_INTERNAL, "cannot generate a key");
        return NULL;
    }
    return wrap_key(ec, err);
}

/* Instead of asking on the terminal, which is what OpenSSL does without one. */
static int no_password(char *out, int size, int writing, void *asked)
{
    (void)out;
    (void)size;
    (void)writing;
    *(bool *)asked = true;
    return -1;
}

struct ecdsa_key *ecdsa_key_from_pem(struct slice pem, struct error *err)
{
    BIO *bio = pem.len <= INT32_MAX ? BIO_new_mem_buf(pem.ptr, (int)pem.len) : NULL;
    bool encrypted = false;
    EVP_PKEY *pkey = NULL;
    EC_KEY *ec = NULL;

    if (bio)
        pkey = PEM_read_bio_PrivateKey(bio, NULL, no_password, &encrypted);
    BIO_free(bio);
    if (!pkey) {
        ERR_clear_error();
        if (encrypted) {
            error_set(err, ERR_UNSUPPORTED, "the private key is encrypted");
            error_hint(err, "store it without a pass phrase, readable only by you");
        } else {
            error_set(err, ERR_INVALID, "there is no PEM private key in it");
        }
        return NULL;
    }
    if (EVP_PKEY_get_base_id(pkey) == EVP_PKEY_EC)
        ec = EVP_PKEY_get1_EC_KEY(pkey);
    EVP_PKEY_free(pkey);
    if (!ec) {
        ERR_clear_error();
        error_set(err, ERR_UNSUPPORTED, "the private key is not an elliptic-curve key");
        error_hint(err, "use a key on P-256, P-384 or P-521");
        return NULL;
    }
    return wrap_key(ec, err);
}

int ecdsa_key_to_pem(const struct ecdsa_key *key, struct buf *out, struct error *err)
{
    EVP_PKEY *pkey = EVP_PKEY_new();
    BIO *bio = BIO_new(BIO_s_secmem());
    char *text = NULL;
    long len;
    int ret;

    ossl_must(pkey && bio && EVP_PKEY_set1_EC_KEY(pkey, key->ec) == 1);
    if (PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL) != 1) {
        ret = ossl_error(err, ERR_INTERNAL, "cannot encode the private key");
    } else {
        len = BIO_get_mem_data(bio, &text);
        ret = buf_append(out, text, (size_t)len);
        if (ret < 0)
            error_set(err, ERR_LIMIT, "no room for the private key");
    }
    BIO_free(bio);
    EVP_PKEY_free(pkey);
    return ret;
}

enum ecdsa_curve ecdsa_key_curve(const struct ecdsa_key *key)
{
    return key->curve;
}

void ecdsa_key_scalar(const struct ecdsa_key *key, uint8_t *out)
{
    int len = (int)curves[key->curve].order_len;

    ossl_must(BN_bn2binpad(EC_KEY_get0_private_key(key->ec), out, len) == len);
}

/* ---- signing ---- */

/* bits2octets (RFC 6979 section 2.3.4); digests here are never longer than the order. */
static void digest_mod_order(const struct curve *c, const BIGNUM *order, struct slice digest,
                             uint8_t *out, BN_CTX *ctx)
{
    BIGNUM *e = BN_bin2bn(digest.ptr, (int)digest.len, NULL);

    ossl_must(e && BN_nnmod(e, e, order, ctx) == 1 && BN_bn2binpad(e, out, (int)c->order_len) > 0);
    BN_free(e);
}

/*
 * For the nonce k: r = x(k G) mod n and kinv = k^-1 mod n. The inverse is k^(n-2) by a
 * fixed-window exponentiation, whose run time does not depend on k. False when r is 0.
 */
static bool nonce_setup(const EC_GROUP *group, const BIGNUM *k, BIGNUM *r, BIGNUM *kinv,
                        BN_CTX *ctx)
{
    const BIGNUM *order = EC_GROUP_get0_order(group);
    EC_POINT *point = EC_POINT_new(group);
    BIGNUM *exponent = BN_dup(order);

    ossl_must(point && exponent && BN_sub_word(exponent, 2) == 1);
    BN_set_flags(exponent, BN_FLG_CONSTTIME);
    ossl_must(EC_POINT_mul(group, point, k, NULL, NULL, ctx) == 1 &&
              EC_POINT_get_affine_coordinates(group, point, r, NULL, ctx) == 1 &&
              BN_nnmod(r, r, order, ctx) == 1 &&
              BN_mod_exp_mont_consttime(kinv, k, exponent, order, ctx, NULL) == 1);
    EC_POINT_clear_free(point);
    BN_free(exponent);
    return !BN_is_zero(r);
}

/* Draws candidates until one is a nonce; gives r and kinv for it. */
static void next_nonce(struct rfc6979 *g, const struct curve *c, const EC_GROUP *group, BIGNUM *r,
                       BIGNUM *kinv, BN_CTX *ctx)
{
    const BIGNUM *order = EC_GROUP_get0_order(group);
    uint8_t bytes[ORDER_LEN_MAX];
    BIGNUM *k = BN_secure_new();

    ossl_must(k != NULL);
    BN_set_flags(k, BN_FLG_CONSTTIME);
    do {
        rfc6979_next(g, bytes);
        ossl_must(BN_bin2bn(bytes, (int)c->order_len, k) != NULL);
    } while (BN_is_zero(k) || BN_cmp(k, order) >= 0 || !nonce_setup(group, k, r, kinv, ctx));
    BN_clear_free(k);
    mem_wipe(bytes, sizeof(bytes));
}

int ecdsa_sign(const struct ecdsa_key *key, struct slice message, uint8_t *signature,
               struct error *err)
{
    const struct curve *c = &curves[key->curve];
    const EC_GROUP *group = EC_KEY_get0_group(key->ec);
    uint8_t digest[HASH_LEN_MAX], reduced[ORDER_LEN_MAX], secret[ORDER_LEN_MAX];
    BIGNUM *r = BN_new(), *kinv = BN_secure_new();
    BN_CTX *ctx = BN_CTX_secure_new();
    ECDSA_SIG *sig = NULL;
    struct rfc6979 g;

    ossl_must(r && kinv && ctx);
    hash_once(c->hash, message, digest);
    digest_mod_order(c, EC_GROUP_get0_order(group), slice_of(digest, hash_len(c->hash)), reduced,
                     ctx);
    ossl_must(BN_bn2binpad(EC_KEY_get0_private_key(key->ec), secret, (int)c->order_len) > 0);
    rfc6979_init(&g, c->hash, c->order_bits, secret, reduced);
    mem_wipe(secret, sizeof(secret));
    next_nonce(&g, c, group, r, kinv, ctx);
    rfc6979_wipe(&g);
    sig = ECDSA_do_sign_ex(digest, (int)hash_len(c->hash), kinv, r, key->ec);
    if (sig)
        ossl_must(BN_bn2binpad(ECDSA_SIG_get0_r(sig), signature, (int)c->order_len) > 0 &&
                  BN_bn2binpad(ECDSA_SIG_get0_s(sig), signature + c->order_len, (int)c->order_len) >
                      0);
    BN_free(r);
    BN_clear_free(kinv);
    BN_CTX_free(ctx);
    if (!sig)
        return ossl_error(err, ERR_CRYPTO, "signing failed");
    ECDSA_SIG_free(sig);
    return 0;
}

/* ---- public keys ---- */

void ecdsa_pub_free(struct ecdsa_pub *pub)
{
    if (!pub)
        return;
    EC_KEY_free(pub->ec);
    free(pub);
}

/* Takes over `ec`, also when it fails. */
static struct ecdsa_pub *wrap_pub(EC_KEY *ec, struct error *err)
{
    struct ecdsa_pub *pub;
    enum ecdsa_curve curve = ECDSA_P256;

    if (curve_of(ec, &curve, err) < 0) {
        EC_KEY_free(ec);
        return NULL;
    }
    pub = xcalloc(1, sizeof(*pub));
    pub->curve = curve;
    pub->ec = ec;
    return pub;
}

struct ecdsa_pub *ecdsa_pub_of_key(const struct ecdsa_key *key)
{
    EC_KEY *ec = EC_KEY_new_by_curve_name(curves[key->curve].nid);
    struct ecdsa_pub *pub = xcalloc(1, sizeof(*pub));

    ossl_must(ec && EC_KEY_set_public_key(ec, EC_KEY_get0_public_key(key->ec)) == 1);
    pub->curve = key->curve;
    pub->ec = ec;
    return pub;
}

/* The decoder takes BER and ignores what follows; only the one DER spelling may pass. */
static bool is_exact_spki(EC_KEY *ec, struct slice der)
{
    uint8_t *again = NULL;
    int len = i2d_EC_PUBKEY(ec, &again);
    bool same = len > 0 && slice_equal(slice_of(again, (size_t)len), der);

    OPENSSL_free(again);
    return same;
}

struct ecdsa_pub *ecdsa_pub_from_spki(struct slice der, struct error *err)
{
    const uint8_t *p = der.ptr;
    EC_KEY *ec = der.len && der.len <= INT32_MAX ? d2i_EC_PUBKEY(NULL, &p, (long)der.len) : NULL;

    if (!ec) {
        ossl_error(err, ERR_INVALID, "not an elliptic-curve public key");
        return NULL;
    }
    if (!is_exact_spki(ec, der)) {
        EC_KEY_free(ec);
        error_set(err, ERR_INVALID, "the public key is not in DER form");
        return NULL;
    }
    return wrap_pub(ec, err);
}

struct ecdsa_pub *ecdsa_pub_from_cert(struct slice der, struct error *err)
{
    const uint8_t *p = der.ptr;
    X509 *cert = der.len && der.len <= INT32_MAX ? d2i_X509(NULL, &p, (long)der.len) : NULL;
    EVP_PKEY *pkey = cert ? X509_get0_pubkey(cert) : NULL;
    EC_KEY *ec = NULL;

    if (pkey && EVP_PKEY_get_base_id(pkey) == EVP_PKEY_EC)
        ec = EVP_PKEY_get1_EC_KEY(pkey);
    X509_free(cert);
    if (ec)
        return wrap_pub(ec, err);
    if (pkey)
        error_set(err, ERR_UNSUPPORTED, "the certificate's key is not an elliptic-curve key");
    else
        error_set(err, ERR_INVALID, "not a certificate with a usable key");
    ERR_clear_error();
    return NULL;
}

enum ecdsa_curve ecdsa_pub_curve(const struct ecdsa_pub *pub)
{
    return pub->curve;
}

bool ecdsa_pub_equal(const struct ecdsa_pub *a, const struct ecdsa_pub *b)
{
    return a->curve == b->curve &&
           EC_POINT_cmp(EC_KEY_get0_group(a->ec), EC_KEY_get0_public_key(a->ec),
                        EC_KEY_get0_public_key(b->ec), NULL) == 0;
}

int ecdsa_pub_to_spki(const struct ecdsa_pub *pub, struct buf *out, struct error *err)
{
    uint8_t *der = NULL;
    int len = i2d_EC_PUBKEY(pub->ec, &der), ret;

    if (len <= 0)
        return ossl_error(err, ERR_INTERNAL, "cannot encode the public key");
    ret = buf_append(out, der, (size_t)len);
    OPENSSL_free(der);
    return ret < 0 ? error_set(err, ERR_LIMIT, "no room for the public key") : 0;
}

bool ecdsa_verify(const struct ecdsa_pub *pub, struct slice message, struct slice signature)
{
    const struct curve *c = &curves[pub->curve];
    uint8_t digest[HASH_LEN_MAX];
    ECDSA_SIG *sig;
    BIGNUM *r, *s;
    bool good;

    if (signature.len != 2 * c->order_len)
        return false;
    sig = ECDSA_SIG_new();
    r = BN_bin2bn(signature.ptr, (int)c->order_len, NULL);
    s = BN_bin2bn(signature.ptr + c->order_len, (int)c->order_len, NULL);
    ossl_must(sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1);
    hash_once(c->hash, message, digest);
    /* It also refuses r or s outside 1..n-1. */
    good = ECDSA_do_verify(digest, (int)hash_len(c->hash), sig, pub->ec) == 1;
    ECDSA_SIG_free(sig);
    ERR_clear_error();
    return good;
}
