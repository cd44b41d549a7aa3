/*
 * Decompression of layers and archives as a stream: gzip (RFC 1952, several members too), zstd
 * (RFC 8878, several and skippable frames too) or plain, told apart by their first bytes as
 * container engines do. The digests of both sides are computed on the way.
 *
 * Compressed bombs: the output is bounded, and past UNPACK_RATIO_FROM its ratio to the input too.
 */
#ifndef CAPSULE_OCI_UNPACK_H
#define CAPSULE_OCI_UNPACK_H

#include "oci/blob.h"

#define UNPACK_CHUNK ((size_t)256 << 10)
#define UNPACK_MAX   ((uint64_t)64 << 30) /* uncompressed bytes of one layer, by default */
#define UNPACK_RATIO_FROM                                                                          \
    ((uint64_t)4 << 30) /* up to here any ratio is fine: zero-filled files                         \
                         */
#define UNPACK_RATIO_MAX 200
/* log2 of the largest zstd window: 32 MiB. Levels up to 20 need no more; it is memory. */
#define UNPACK_ZSTD_WINDOW 25

struct unpack;

/*
 * Starts on a blob, which stays the caller's. `packed` and `unpacked` name the digests to be
 * computed (NULL: none). `max` 0 means UNPACK_MAX.
 */
struct unpack *unpack_new(const struct blob *b, const enum hash_alg *packed,
                          const enum hash_alg *unpacked, uint64_t max, struct error *err);
/*
 * The next uncompressed bytes, valid until the next call; empty at the end. A stream that ends
 * early, or has something behind its end, is ERR_INVALID.
 */
int unpack_read(struct unpack *u, struct slice *out, struct error *err);
/* Reads the rest, which is not wanted, so that the digests are those of the whole. */
int unpack_drain(struct unpack *u, struct error *err);
/* After the end. */
void unpack_digests(struct unpack *u, struct digest *packed, struct digest *unpacked);
/* True when the blob is not compressed. */
bool unpack_is_plain(const struct unpack *u);
void unpack_free(struct unpack *u);
static inline void cleanup_unpack(struct unpack **u)
{
    unpack_free(*u);
}
#define AUTO_UNPACK CLEANUP(cleanup_unpack)

#endif
