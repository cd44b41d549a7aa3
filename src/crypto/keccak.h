/*
 * Keccak-256 as Ethereum uses it: the Keccak submission with rate 136, capacity 64 and the original
 * padding byte 0x01, not the 0x06 of SHA3-256 (FIPS 202).
 */
#ifndef CAPSULE_CRYPTO_KECCAK_H
#define CAPSULE_CRYPTO_KECCAK_H

#include "base/slice.h"

#define KECCAK256_LEN  32
#define KECCAK256_RATE 136

/* A running digest; plain data, initialised to zeros with KECCAK256_INIT. */
struct keccak256 {
    uint64_t lane[25];
    size_t at; /* bytes of the current block that are in */
};
#define KECCAK256_INIT ((struct keccak256){0})

void keccak256_update(struct keccak256 *k, struct slice bytes);
/* Writes KECCAK256_LEN bytes; the state is wiped and starts over empty. */
void keccak256_final(struct keccak256 *k, uint8_t *out);
void keccak256_once(struct slice bytes, uint8_t *out);

#endif
