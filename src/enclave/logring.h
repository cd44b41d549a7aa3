/*
 * The last 131071 bytes of output. Every byte has an offset, counted since the start; the oldest
 * fall out. Readers keep an offset of their own, so writing never waits for anybody.
 */
#ifndef CAPSULE_ENCLAVE_LOGRING_H
#define CAPSULE_ENCLAVE_LOGRING_H

#include "base/slice.h"

#include <stdint.h>

#define LOGRING_BYTES 131071

struct logring {
    uint8_t *ptr; /* taken at the first write */
    uint64_t end; /* bytes ever written */
};

void logring_free(struct logring *r);
void logring_write(struct logring *r, const void *ptr, size_t len);
/* Offset of the oldest byte kept. */
uint64_t logring_start(const struct logring *r);
/*
 * Where a reader that wants the bytes from `offset` on begins: there if the ring still has it (or
 * it is the end), else at the start of the first whole line kept. At most r->end.
 */
uint64_t logring_seek(const struct logring *r, uint64_t offset);
/* Bytes at `offset` (kept, or the end) that lie in one piece; valid until the next write. */
struct slice logring_peek(const struct logring *r, uint64_t offset);

#endif
