/* HKDF with SHA-256: RFC 5869. */
#ifndef CAPSULE_CRYPTO_HKDF_H
#define CAPSULE_CRYPTO_HKDF_H

#include "base/slice.h"

#define HKDF_SHA256_OUT_MAX (255 * 32)
#define HKDF_INFO_MAX       1024 /* OpenSSL's bound */

/*
 * Extracts and expands: writes `len` bytes, 1 to HKDF_SHA256_OUT_MAX, which the caller wipes. An
 * empty salt is the one of 32 zeros; `info` has at most HKDF_INFO_MAX bytes.
 */
void hkdf_sha256(struct slice ikm, struct slice salt, struct slice info, uint8_t *out, size_t len);

#endif
