#include "crypto/p384.h"

#include "crypto/ossl.h"
#include "crypto/pem.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/obj_mac.h>
#include <pthread.h>

#define COMPRESSED_LEN (1 + P384_SECRET_LEN)
#define SPKI_HEAD_LEN  (P384_SPKI_LEN - P384_POINT_LEN)

/* RFC 5480: id-ecPublicKey, secp384r1, and a BIT STRING that is a point and nothing else. */
static const uint8_t spki_head[SPKI_HEAD_LEN] = {0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86,
                                                 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
                                                 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00};
static const uint8_t spki_head_compressed[SPKI_HEAD_LEN] = {
    0x30, 0x46, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
    0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x32, 0x00};

struct p384_key {
    BIGNUM *secret;
    uint8_t point[P384_POINT_LEN];
};

static EC_GROUP *shared_group;

static void make_group(void)
{
    shared_group = EC_GROUP_new_by_curve_name(NID_secp384r1);
    ossl_must(shared_group != NULL);
}

/* The curve is made once and only read from then on, by all threads. */
static const EC_GROUP *curve(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_group);
    return shared_group;
}

void p384_key_free(struct p384_key *key)
{
    if (!key)
        return;
    BN_clear_free(key->secret);
    free(key);
}

struct p384_key *p384_key_from_bytes(const uint8_t *secret)
{
    const EC_GROUP *group = curve();
    BIGNUM *scalar = BN_secure_new();
    struct p384_key *key = NULL;
    EC_POINT *point = NULL;

    ossl_must(scalar && BN_bin2bn(secret, P384_SECRET_LEN, scalar));
    BN_set_flags(scalar, BN_FLG_CONSTTIME);
    if (BN_is_zero(scalar) || BN_cmp(scalar, EC_GROUP_get0_order(group)) >= 0) {
        BN_clear_free(scalar);
    } else {
        key = xcalloc(1, sizeof(*key));
        key->secret = scalar;
        point = EC_POINT_new(group);
        ossl_must(point && EC_POINT_mul(group, point, scalar, NULL, NULL, NULL) == 1 &&
                  EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, key->point,
                                     P384_POINT_LEN, NULL) == P384_POINT_LEN);
    }
    EC_POINT_free(point);
    return key;
}

struct p384_key *p384_key_draw(const struct entropy *from, struct error *err)
{
    uint8_t secret[P384_SECRET_LEN];
    struct p384_key *key = NULL;
    bool failed = false;

    for (int i = 0; i < ENTROPY_DRAWS_MAX && !key && !failed; i++) {
        failed = from->fill(from->arg, secret, sizeof(secret), err) < 0;
        if (!failed)
            key = p384_key_from_bytes(secret);
    }
    mem_wipe(secret, sizeof(secret));
    if (!key && !failed)
        error_set(err, ERR_INTERNAL, "no P-384 key in %d draws: the randomness is broken",
                  ENTROPY_DRAWS_MAX);
    return key;
}

void p384_key_point(const struct p384_key *key, uint8_t *out)
{
    memcpy(out, key->point, P384_POINT_LEN);
}

/* The point of a SEC1 encoding, or NULL when that is none; the caller frees it. */
static EC_POINT *read_point(struct slice sec1, BN_CTX *ctx)
{
    EC_POINT *point = EC_POINT_new(curve());

    ossl_must(point != NULL);
    if (EC_POINT_oct2point(curve(), point, sec1.ptr, sec1.len, ctx) == 1)
        return point;
    ERR_clear_error();
    EC_POINT_free(point);
    return NULL;
}

int p384_ecdh(const struct p384_key *key, const uint8_t *point, uint8_t *shared)
{
    BN_CTX *ctx = BN_CTX_secure_new();
    EC_POINT *peer, *product;
    int ret = -1;
    BIGNUM *x;

    ossl_must(ctx != NULL);
    peer = point[0] == POINT_CONVERSION_UNCOMPRESSED
               ? read_point(slice_of(point, P384_POINT_LEN), ctx)
               : NULL;
    if (peer) {
        /* The cofactor is 1: a scalar below the order never leads to infinity. */
        product = EC_POINT_new(curve());
        x = BN_secure_new();
        ossl_must(product && x &&
                  EC_POINT_mul(curve(), product, NULL, peer, key->secret, ctx) == 1 &&
                  EC_POINT_get_affine_coordinates(curve(), product, x, NULL, ctx) == 1 &&
                  BN_bn2binpad(x, shared, P384_SHARED_LEN) == P384_SHARED_LEN);
        BN_clear_free(x);
        EC_POINT_clear_free(product);
        ret = 0;
    }
    EC_POINT_free(peer);
    BN_CTX_free(ctx);
    return ret;
}

/* ---- encodings ---- */

void p384_point_spki(const uint8_t *point, uint8_t *out)
{
    memcpy(out, spki_head, SPKI_HEAD_LEN);
    memcpy(out + SPKI_HEAD_LEN, point, P384_POINT_LEN);
}

int p384_point_pem(const uint8_t *point, struct buf *out)
{
    uint8_t spki[P384_SPKI_LEN];

    p384_point_spki(point, spki);
    return pem_encode("PUBLIC KEY", slice_of(spki, sizeof(spki)), out);
}

/*
 * The SEC1 bytes behind either head. The first byte is looked at here because OpenSSL also takes
 * the hybrid forms 06 and 07.
 */
static bool find_sec1(struct slice der, struct slice *sec1)
{
    if (der.len < SPKI_HEAD_LEN)
        return false;
    *sec1 = slice_of(der.ptr + SPKI_HEAD_LEN, der.len - SPKI_HEAD_LEN);
    if (sec1->len == P384_POINT_LEN)
        return memcmp(der.ptr, spki_head, SPKI_HEAD_LEN) == 0 && sec1->ptr[0] == 0x04;
    return sec1->len == COMPRESSED_LEN &&
           memcmp(der.ptr, spki_head_compressed, SPKI_HEAD_LEN) == 0 &&
           (sec1->ptr[0] == 0x02 || sec1->ptr[0] == 0x03);
}

int p384_point_from_spki(struct slice der, uint8_t *point, struct error *err)
{
    struct slice sec1;
    EC_POINT *read;

    if (!find_sec1(der, &sec1))
        return error_set(err, ERR_INVALID,
                         "not a P-384 public key in the form of a DER SubjectPublicKeyInfo");
    read = read_point(sec1, NULL);
    if (!read)
        return error_set(err, ERR_INVALID, "not a point on the curve P-384");
    ossl_must(EC_POINT_point2oct(curve(), read, POINT_CONVERSION_UNCOMPRESSED, point,
                                 P384_POINT_LEN, NULL) == P384_POINT_LEN);
    EC_POINT_free(read);
    return 0;
}
