/* What a certificate of a document says, for people to read. Nothing is verified. */
#ifndef CAPSULE_ATTEST_DESCRIBE_H
#define CAPSULE_ATTEST_DESCRIBE_H

#include "base/error.h"
#include "base/slice.h"

struct attest_certificate_info {
    char *subject; /* RFC 2253, ASCII: other bytes are escaped */
    char *issuer;
    char *serial;       /* hex */
    int64_t not_before; /* seconds since 1970 */
    int64_t not_after;
    uint8_t sha256[32]; /* of the DER form */
};

/* Fills *out, to be released with attest_certificate_info_free(); ERR_INVALID for other bytes. */
int attest_certificate_describe(struct slice der, struct attest_certificate_info *out,
                                struct error *err);
void attest_certificate_info_free(struct attest_certificate_info *info);

#endif
