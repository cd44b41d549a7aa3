/* libcbor behind a small door: its names and ours do not fit into one file. */
#ifndef CAPSULE_TESTS_CBOR_ORACLE_H
#define CAPSULE_TESTS_CBOR_ORACLE_H

#include <stddef.h>
#include <stdint.h>

/* A repeatable sequence (splitmix64). */
static inline uint64_t oracle_next(uint64_t *seed)
{
    uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* libcbor 0.8 refuses tags that were unassigned in 2013; from here on all are fine. */
#define ORACLE_TAG_MIN 24

/* Writes a random item within the subset of codec/cbor.h and returns its length. */
size_t oracle_write(uint64_t *seed, uint8_t *out, size_t size);
/*
 * Renders one item as text: 1 ~1 h'00' t'61' [1,2] {1:2} 7(1) true null, a leading _ inside the
 * brackets for indefinite ones. NULL when libcbor refuses the bytes. The caller frees it.
 */
char *oracle_render(const uint8_t *bytes, size_t len);

#endif
