/* Where key bytes come from: the NSM in an enclave, the kernel elsewhere, vectors in tests. */
#ifndef CAPSULE_CRYPTO_ENTROPY_H
#define CAPSULE_CRYPTO_ENTROPY_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct entropy {
    /* Writes `len` random bytes; 0, or -1 with *err. */
    int (*fill)(void *arg, uint8_t *out, size_t len, struct error *err);
    void *arg;
};

/* A scalar outside 1..n-1 is drawn anew so many times; for both curves chance never needs two. */
#define ENTROPY_DRAWS_MAX 16

/* The kernel's generator, getrandom(2). */
extern const struct entropy entropy_kernel;

#endif
