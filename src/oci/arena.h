/*
 * Memory that the kernel may take back: an append-only array of bytes in an unlinked temporary
 * file, mapped shared at a fixed address. What is not in use at the moment is page cache, not
 * process memory, so an index of millions of files costs the process a bounded resident size.
 */
#ifndef CAPSULE_OCI_ARENA_H
#define CAPSULE_OCI_ARENA_H

#include "base/error.h"
#include "base/slice.h"

struct arena {
    uint8_t *base; /* the address never changes while the arena lives */
    size_t used;
    size_t size; /* bytes of the file that have disk space behind them */
    size_t max;
    int fd;
    const char *what; /* for messages: "file names" */
};
#define ARENA_NONE ((struct arena){.fd = -1})

/* Reserves address space for `max` bytes; disk space is taken piece by piece. */
int arena_open(struct arena *a, size_t max, const char *what, struct error *err);
/* Unmaps and closes. Safe on ARENA_NONE. */
void arena_close(struct arena *a);
/*
 * Takes `len` zero bytes at a multiple of `align` (a power of two) and stores their offset.
 * ERR_LIMIT past `max`; an error with a hint when the disk is full.
 */
int arena_take(struct arena *a, size_t len, size_t align, size_t *offset, struct error *err);
/* Gives the resident pages back to the kernel; the contents stay. */
void arena_relax(const struct arena *a);

/* Bytes of this process that are resident because of shared mappings (from /proc/self/statm). */
size_t arena_resident(void);

#endif
