/*
 * CRC-32/ISO-HDLC (the checksum of zlib, gzip and Ethernet): polynomial 0xEDB88320 reflected,
 * initial value and final XOR 0xFFFFFFFF, 0xCBF43926 for "123456789" (spec/eif.md section 4).
 */
#ifndef CAPSULE_CODEC_CRC32_H
#define CAPSULE_CODEC_CRC32_H

#include "base/slice.h"

/* The checksum of no bytes, from which crc32_update() starts. */
#define CRC32_EMPTY 0u

/* The checksum of the bytes that gave `crc`, followed by `bytes`. */
uint32_t crc32_update(uint32_t crc, struct slice bytes);
/*
 * The checksum of A followed by B, from crc(A), crc(B) and B's length, without seeing the bytes
 * again. Takes time logarithmic in the length.
 */
uint32_t crc32_join(uint32_t a, uint32_t b, uint64_t b_len);

#endif
