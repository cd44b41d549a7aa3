/* P-384 private keys in files: PEM, unencrypted, PKCS#8 (RFC 5958) or SEC1 (RFC 5915). */
#ifndef CAPSULE_CRYPTO_P384_PEM_H
#define CAPSULE_CRYPTO_P384_PEM_H

#include "crypto/p384.h"

#define P384_PEM_MAX 4096 /* bytes of such a file with room for comments; ours take 306 */

/* Keys of another kind, encrypted ones and inconsistent ones are errors that say so. */
struct p384_key *p384_key_from_pem(struct slice pem, struct error *err);
/* Draws a fresh key from the library's generator and appends it as PKCS#8; `out` should be secret.
 */
int p384_key_generate_pem(struct buf *out, struct error *err);

#endif
