#include "crypto/p384.h"

#include "crypto/ossl.h"
#include "crypto/pem.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>

struct p384_key {
    BIGNUM *secret;
    uint8_t point[P384_POINT_LEN];
};

void p384_key_free(struct p384_key *key)
{
    if (!key)
        return;
    BN_clear_free(key->secret);
    free(key);
}

struct p384_key *p384_key_from_bytes(const uint8_t *secret)
{
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_secp384r1);
    BIGNUM *scalar = BN_secure_new();
    struct p384_key *key = NULL;
    EC_POINT *point = NULL;

    ossl_must(group && scalar && BN_bin2bn(secret, P384_SECRET_LEN, scalar));
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
    EC_GROUP_free(group);
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

void p384_point_spki(const uint8_t *point, uint8_t *out)
{
    static const uint8_t head[P384_SPKI_LEN - P384_POINT_LEN] = {
        0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
        0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00};

    memcpy(out, head, sizeof(head));
    memcpy(out + sizeof(head), point, P384_POINT_LEN);
}

int p384_point_pem(const uint8_t *point, struct buf *out)
{
    uint8_t spki[P384_SPKI_LEN];

    p384_point_spki(point, spki);
    return pem_encode("PUBLIC KEY", slice_of(spki, sizeof(spki)), out);
}
