/* PEM text (RFC 7468): label lines around base64 in lines of 64 characters. */
#ifndef CAPSULE_CRYPTO_PEM_H
#define CAPSULE_CRYPTO_PEM_H

#include "base/error.h"
#include "base/slice.h"

/*
 * Appends "-----BEGIN LABEL-----" to "-----END LABEL-----" with LF line ends and no final newline
 * (spec/capsule-api.md section 4). Returns 0, or -1 when the buf is full.
 */
int pem_encode(const char *label, struct slice der, struct buf *out) MUST_USE;
/*
 * Appends the bytes of the first block with this label; text before it and blocks with other
 * labels are passed over. Lines of any width end with LF, CRLF or CR, after blanks; the base64 must
 * be canonical. ERR_NOT_FOUND when there is no such block, ERR_INVALID when it is malformed.
 */
int pem_decode(const char *label, struct slice text, struct buf *out, struct error *err);

#endif
