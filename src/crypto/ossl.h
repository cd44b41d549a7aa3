/* What the files of this room share when they talk to OpenSSL. Not for other rooms. */
#ifndef CAPSULE_CRYPTO_OSSL_H
#define CAPSULE_CRYPTO_OSSL_H

#include "base/error.h"

/*
 * Fills *err with `what` and the reason that OpenSSL queued last, empties the queue, and returns
 * -1. The reasons name the kind of trouble, never key bytes.
 */
int ossl_error(struct error *err, enum error_kind kind, const char *what);

/* Allocation and other failures of OpenSSL that leave nothing to go on with. */
void ossl_must(int ok);

#endif
