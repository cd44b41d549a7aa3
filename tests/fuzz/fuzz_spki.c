/* A caller's public key as the Capsule API reads it: PEM text, then the SubjectPublicKeyInfo in it.
 */
#include "api/spki.h"
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_BUF struct buf der = BUF(1 << 20), again = BUF(1 << 20), text = BUF(1 << 21);
    struct error err;

    check(slice_of(data, size));
    if (pem_decode("PUBLIC KEY", slice_of(data, size), &der, &err) < 0)
        return 0;
    check(buf_slice(&der));
    if (pem_encode("PUBLIC KEY", buf_slice(&der), &text) < 0 ||
        pem_decode("PUBLIC KEY", buf_slice(&text), &again, &err) < 0 ||
        !slice_equal(buf_slice(&der), buf_slice(&again)))
        abort();
    return 0;
}
