/*
 * A caller's public key as the Capsule API reads it: PEM text, then the SubjectPublicKeyInfo in it;
 * and the peer's P-384 key of the encryption routes.
 */
#include "api/spki.h"
#include "crypto/p384.h"
#include "crypto/pem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is accepted must lie in the input, reach its end and not be empty. */
static void check(struct slice der)
{
    struct error err;
    struct slice key;

    if (spki_key_bytes(der, &key, &err) < 0)
        return;
    if (key.len == 0 || key.ptr < der.ptr || key.ptr + key.len != der.ptr + der.len)
        abort();
}

/* An accepted point has two spellings, and this is one of them. */
static void check_p384(struct slice der)
{
    uint8_t point[P384_POINT_LEN], again[P384_POINT_LEN], spki[P384_SPKI_LEN];
    struct error err;

    if (p384_point_from_spki(der, point, &err) < 0)
        return;
    p384_point_spki(point, spki);
    if (p384_point_from_spki(slice_of(spki, sizeof(spki)), again, &err) < 0 ||
        memcmp(point, again, sizeof(point)) != 0)
        abort();
    if (der.len == sizeof(spki) ? memcmp(der.ptr, spki, sizeof(spki)) != 0
                                : der.ptr[der.len - 49] != (2 | (point[96] & 1)) ||
                                      memcmp(der.ptr + der.len - 48, point + 1, 48) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_BUF struct buf der = BUF(1 << 20), again = BUF(1 << 20), text = BUF(1 << 21);
    struct error err;

    check(slice_of(data, size));
    check_p384(slice_of(data, size));
    if (pem_decode("PUBLIC KEY", slice_of(data, size), &der, &err) < 0)
        return 0;
    check(buf_slice(&der));
    if (pem_encode("PUBLIC KEY", buf_slice(&der), &text) < 0 ||
        pem_decode("PUBLIC KEY", buf_slice(&text), &again, &err) < 0 ||
        !slice_equal(buf_slice(&der), buf_slice(&again)))
        abort();
    return 0;
}
