/* Making the certificates of the development PKI: the rows of spec/nsm.md section 4.3. */
#ifndef CAPSULE_ATTEST_DEVCERT_H
#define CAPSULE_ATTEST_DEVCERT_H

#include "base/error.h"
#include "base/slice.h"

#include <openssl/x509.h>

enum devcert_level {
    DEVCERT_ROOT,
    DEVCERT_REGIONAL,
    DEVCERT_ZONAL,
    DEVCERT_INSTANCE,
    DEVCERT_LEAF,
    DEVCERT_LEVELS,
};

struct devcert_spec {
    enum devcert_level level;
    const char *common_name;
    uint8_t serial[16];
    int64_t now;      /* the lifetime starts 3 s earlier */
    EVP_PKEY *key;    /* the subject's; only its public half is used */
    X509 *issuer;     /* NULL: self-signed */
    EVP_PKEY *signer; /* the issuer's key, or the subject's own */
};

/* Seconds that a certificate of this level is valid. */
int64_t devcert_lifetime(enum devcert_level level);
/* A signed certificate; the caller frees it with X509_free(). NULL with *err. */
X509 *devcert_make(const struct devcert_spec *spec, struct error *err);
/* Appends the DER form. */
int devcert_to_der(X509 *cert, struct buf *out, struct error *err);

#endif
