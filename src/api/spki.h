/* The public key that a caller wants attested: PEM in, key bytes out. */
#ifndef CAPSULE_API_SPKI_H
#define CAPSULE_API_SPKI_H

#include "base/error.h"
#include "base/slice.h"

/*
 * Finds the content of the BIT STRING of a DER SubjectPublicKeyInfo (RFC 5280 section 4.1): a SEC1
 * point, a PKCS#1 key, 32 raw bytes, ... Algorithm and key are not looked at. The DER must be one
 * SPKI with nothing behind it, minimal lengths, no unused bits and a key of at least one byte.
 * *key points into `der`.
 */
int spki_key_bytes(struct slice der, struct slice *key, struct error *err);

#endif
