#include "crypto/p384_pem.h"

#include "crypto/ecdsa.h"

struct p384_key *p384_key_from_pem(struct slice pem, struct error *err)
{
    struct ecdsa_key *read = ecdsa_key_from_pem(pem, err);
    uint8_t secret[P384_SECRET_LEN];
    struct p384_key *key = NULL;

    if (!read)
        return NULL;
    if (ecdsa_key_curve(read) == ECDSA_P384) {
        ecdsa_key_scalar(read, secret);
        key = p384_key_from_bytes(secret);
        mem_wipe(secret, sizeof(secret));
    }
    ecdsa_key_free(read);
    if (!key)
        error_set(err, ERR_UNSUPPORTED, "the private key is not on the curve P-384");
    return key;
}

int p384_key_generate_pem(struct buf *out, struct error *err)
{
    struct ecdsa_key *key = ecdsa_key_generate(ECDSA_P384, err);
    int ret = key ? ecdsa_key_to_pem(key, out, err) : -1;

    ecdsa_key_free(key);
    return ret;
}
