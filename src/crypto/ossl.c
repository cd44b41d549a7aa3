#include "crypto/ossl.h"

#include "crypto/library.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdlib.h>

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
