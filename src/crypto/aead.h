/* AES-256-GCM with 12-byte nonces and whole 16-byte tags (NIST SP 800-38D). */
#ifndef CAPSULE_CRYPTO_AEAD_H
#define CAPSULE_CRYPTO_AEAD_H

#include "base/slice.h"

#define AES256_GCM_KEY_LEN   32
#define AES256_GCM_NONCE_LEN 12
#define AES256_GCM_TAG_LEN   16
#define AES256_GCM_TEXT_MAX  (1 << 30) /* bytes of plaintext, and of additional data */

/*
 * Appends ciphertext || tag. A nonce must never serve twice under one key. -1, with nothing
 * appended, when the buf is full or an input is above AES256_GCM_TEXT_MAX.
 */
int aes256_gcm_seal(const uint8_t *key, const uint8_t *nonce, struct slice aad,
                    struct slice plaintext, struct buf *out) MUST_USE;
/*
 * Appends the plaintext of ciphertext || tag, for which the buf should be secret. -1, with nothing
 * appended and what was decrypted wiped, when the tag does not fit, there is no whole tag, the buf
 * is full or an input is above AES256_GCM_TEXT_MAX.
 */
int aes256_gcm_open(const uint8_t *key, const uint8_t *nonce, struct slice aad, struct slice sealed,
                    struct buf *out) MUST_USE;

#endif
