#include "crypto/keccak.h"

#define ROUNDS 24

static uint64_t rotl(uint64_t v, unsigned int n)
{
    return n ? v << n | v >> (64 - n) : v;
}

/*
 * theta, rho, pi, chi and iota of the Keccak reference, section 1.2, on lanes A[x + 5y]. Unrolled,
 * all indexes and distances are constants, which makes it five times as fast.
 */
static void permute(uint64_t a[25])
{
    static const uint64_t iota[ROUNDS] = {
        0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000,
        0x000000000000808b, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
        0x000000000000008a, 0x0000000000000088, 0x0000000080008009, 0x000000008000000a,
        0x000000008000808b, 0x800000000000008b, 0x8000000000008089, 0x8000000000008003,
        0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
        0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008};
    static const uint8_t rho[25] = {0,  1,  62, 28, 27, 36, 44, 6,  55, 20, 3,  10, 43,
                                    25, 39, 41, 45, 15, 21, 8,  18, 2,  61, 56, 14};
    uint64_t b[25], c[5];

    for (unsigned int round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 5
        for (unsigned int x = 0; x < 5; x++)
            c[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
#pragma GCC unroll 25
        for (unsigned int i = 0; i < 25; i++)
            a[i] ^= c[(i + 4) % 5] ^ rotl(c[(i + 1) % 5], 1);
#pragma GCC unroll 5
        for (unsigned int x = 0; x < 5; x++)
#pragma GCC unroll 5
            for (unsigned int y = 0; y < 5; y++)
                b[y + 5 * ((2 * x + 3 * y) % 5)] = rotl(a[x + 5 * y], rho[x + 5 * y]);
#pragma GCC unroll 5
        for (unsigned int y = 0; y < 25; y += 5)
#pragma GCC unroll 5
            for (unsigned int x = 0; x < 5; x++)
                a[x + y] = b[x + y] ^ (~b[(x + 1) % 5 + y] & b[(x + 2) % 5 + y]);
        a[0] ^= iota[round];
    }
}

/* Lanes are little-endian byte strings on every machine. */
static void absorb_byte(struct keccak256 *k, uint8_t byte)
{
    k->lane[k->at / 8] ^= (uint64_t)byte << (8 * (k->at % 8));
}

void keccak256_update(struct keccak256 *k, struct slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        absorb_byte(k, bytes.ptr[i]);
        if (++k->at == KECCAK256_RATE) {
            permute(k->lane);
            k->at = 0;
        }
    }
}

void keccak256_final(struct keccak256 *k, uint8_t *out)
{
    absorb_byte(k, 0x01);
    k->at = KECCAK256_RATE - 1;
    absorb_byte(k, 0x80);
    permute(k->lane);
    for (size_t i = 0; i < KECCAK256_LEN; i++)
        out[i] = (uint8_t)(k->lane[i / 8] >> (8 * (i % 8)));
    mem_wipe(k, sizeof(*k));
}

void keccak256_once(struct slice bytes, uint8_t *out)
{
    struct keccak256 k = KECCAK256_INIT;

    keccak256_update(&k, bytes);
    keccak256_final(&k, out);
}
