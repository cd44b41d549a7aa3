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

/*
 * Two sources hashed together, so that neither alone decides a key; used as
 * (struct entropy){entropy_mix_fill, &mix}. Writes the first `len` bytes of SHA-512(a || b), where
 * both parts are `len` long; `len` is at most ENTROPY_MIX_MAX.
 */
#define ENTROPY_MIX_MAX 64
struct entropy_mix {
    struct entropy a;
    struct entropy b;
};
int entropy_mix_fill(void *mix, uint8_t *out, size_t len, struct error *err);

#endif
