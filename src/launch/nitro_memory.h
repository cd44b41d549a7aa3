/* Huge pages for an enclave (spec/nitro-host.md section 3.3). */
#ifndef CAPSULE_LAUNCH_NITRO_MEMORY_H
#define CAPSULE_LAUNCH_NITRO_MEMORY_H

#include "launch/launcher.h"

#include <stddef.h>
#include <stdint.h>

struct nitro_mapping {
    uint8_t *ptr;
    uint64_t size;
    uint64_t page;
};

/* Mappings in the order that makes up the enclave's memory: the first is its address 0. */
struct nitro_memory {
    struct nitro_mapping *items;
    size_t count;
    uint64_t total;
};

/*
 * Maps at least `bytes` of huge pages, the largest first, all of them there (not only reserved),
 * and on NUMA node `node` unless that is -1. A mapping is one page; with `joined` it is as many of
 * one size as there are, of which the driver makes fewer regions. ERR_LIMIT, with what there was,
 * when they do not suffice.
 */
int nitro_memory_map(struct nitro_memory *m, uint64_t bytes, int node, bool joined,
                     struct error *err);
/*
 * Copies the first `size` bytes of a file to `offset` of the enclave's memory; they may span
 * mappings. Calls req->keep_going now and then.
 */
int nitro_memory_load(struct nitro_memory *m, uint64_t offset, int fd, uint64_t size,
                      const struct launch_request *req, struct error *err);
/* Safe on a struct of zeros. */
void nitro_memory_free(struct nitro_memory *m);

#endif
