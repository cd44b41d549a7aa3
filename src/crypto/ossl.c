#include "crypto/ossl.h"

#include "crypto/library.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdlib.h>

/* Room for the keys and for the numbers of a scalar multiplication in each of a few threads. */
#define GUARDED_BYTES 65536
#define GUARDED_PIECE 32

int ossl_error(struct error *err, enum error_kind kind, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    ERR_clear_error();
    if (reason)
        return error_set(err, kind, "%s: %s", what, reason);
    return error_set(err, kind, "%s", what);
}

void ossl_must(int ok)
{
    if (!ok)
        abort();
}

void crypto_ignore_configuration(void)
{
    ossl_must(OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL));
}

bool crypto_guard_keys(void)
{
    if (CRYPTO_secure_malloc_initialized())
        return true;
    return CRYPTO_secure_malloc_init(GUARDED_BYTES, GUARDED_PIECE) == 1;
}
