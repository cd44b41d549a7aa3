#include "crypto/keccak.h"

#define ROUNDS 24
#define LANE   8

static const uint64_t iota[ROUNDS] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000,
    0x000000000000808b, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
    0x000000000000008a, 0x0000000000000088, 0x0000000080008009, 0x000000008000000a,
    0x000000008000808b, 0x800000000000008b, 0x8000000000008089, 0x8000000000008003,
    0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008};

static uint64_t rotl(uint64_t v, unsigned int n)
{
    return v << n | v >> (64 - n);
}

/*
 * theta, rho, pi, chi and iota of the Keccak reference, section 1.2, on lanes A[x + 5y]. Written
 * out, as constant indices and distances make it several times as fast as loops over x and y.
 */
static void permute(uint64_t a[25])
{
    uint64_t b[25], c[5], d[5];

    for (unsigned int round = 0; round < ROUNDS; round++) {
        c[0] = a[0] ^ a[5] ^ a[10] ^ a[15] ^ a[20];
        c[1] = a[1] ^ a[6] ^ a[11] ^ a[16] ^ a[21];
        c[2] = a[2] ^ a[7] ^ a[12] ^ a[17] ^ a[22];
        c[3] = a[3] ^ a[8] ^ a[13] ^ a[18] ^ a[23];
        c[4] = a[4] ^ a[9] ^ a[14] ^ a[19] ^ a[24];
        d[0] = c[4] ^ rotl(c[1], 1);
        d[1] = c[0] ^ rotl(c[2], 1);
        d[2] = c[1] ^ rotl(c[3], 1);
        d[3] = c[2] ^ rotl(c[4], 1);
        d[4] = c[3] ^ rotl(c[0], 1);
        b[0] = a[0] ^ d[0];
        b[1] = rotl(a[6] ^ d[1], 44);
        b[2] = rotl(a[12] ^ d[2], 43);
        b[3] = rotl(a[18] ^ d[3], 21);
        b[4] = rotl(a[24] ^ d[4], 14);
        b[5] = rotl(a[3] ^ d[3], 28);
        b[6] = rotl(a[9] ^ d[4], 20);
        b[7] = rotl(a[10] ^ d[0], 3);
        b[8] = rotl(a[16] ^ d[1], 45);
        b[9] = rotl(a[22] ^ d[2], 61);
        b[10] = rotl(a[1] ^ d[1], 1);
        b[11] = rotl(a[7] ^ d[2], 6);
        b[12] = rotl(a[13] ^ d[3], 25);
        b[13] = rotl(a[19] ^ d[4], 8);
        b[14] = rotl(a[20] ^ d[0], 18);
        b[15] = rotl(a[4] ^ d[4], 27);
        b[16] = rotl(a[5] ^ d[0], 36);
        b[17] = rotl(a[11] ^ d[1], 10);
        b[18] = rotl(a[17] ^ d[2], 15);
        b[19] = rotl(a[23] ^ d[3], 56);
        b[20] = rotl(a[2] ^ d[2], 62);
        b[21] = rotl(a[8] ^ d[3], 55);
        b[22] = rotl(a[14] ^ d[4], 39);
        b[23] = rotl(a[15] ^ d[0], 41);
        b[24] = rotl(a[21] ^ d[1], 2);
        for (unsigned int y = 0; y < 25; y += 5) {
            a[y] = b[y] ^ (~b[y + 1] & b[y + 2]);
            a[y + 1] = b[y + 1] ^ (~b[y + 2] & b[y + 3]);
            a[y + 2] = b[y + 2] ^ (~b[y + 3] & b[y + 4]);
            a[y + 3] = b[y + 3] ^ (~b[y + 4] & b[y]);
            a[y + 4] = b[y + 4] ^ (~b[y] & b[y + 1]);
        }
        a[0] ^= iota[round];
    }
}

/* Lanes are little-endian byte strings on every machine. */
static void absorb_byte(struct keccak256 *k, uint8_t byte)
{
    k->lane[k->at / LANE] ^= (uint64_t)byte << (8 * (k->at % LANE));
}

/* A whole lane, at the beginning of one. */
static void absorb_lane(struct keccak256 *k, const uint8_t *bytes)
{
    k->lane[k->at / LANE] ^= (uint64_t)get_le32(bytes + 4) << 32 | get_le32(bytes);
}

void keccak256_update(struct keccak256 *k, struct slice bytes)
{
    for (size_t i = 0, step; i < bytes.len; i += step) {
        step = k->at % LANE == 0 && bytes.len - i >= LANE ? LANE : 1;
        if (step == LANE)
            absorb_lane(k, bytes.ptr + i);
        else
            absorb_byte(k, bytes.ptr[i]);
        k->at += step;
        if (k->at == KECCAK256_RATE) {
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
