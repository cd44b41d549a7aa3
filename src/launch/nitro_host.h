/*
 * What this machine has for Nitro enclaves: read from the places that the driver and the allocator
 * service set (spec/nitro-host.md section 2), never changed.
 */
#ifndef CAPSULE_LAUNCH_NITRO_HOST_H
#define CAPSULE_LAUNCH_NITRO_HOST_H

#include "base/slice.h"
#include "launch/launcher.h"

#include <stdint.h>

#define NITRO_POOL_MAX 512 /* of the CPU pool as text, with its NUL */

struct nitro_pages {
    uint64_t total;
    uint64_t free;
};

struct nitro_host {
    char pool[NITRO_POOL_MAX]; /* "2,3,6-9"; "" without one */
    unsigned int cpus;         /* in it; other enclaves may have some of them */
    int node;                  /* NUMA node of the pool, or -1 where the kernel does not tell */
    struct nitro_pages large;  /* of 1 GiB, on that node */
    struct nitro_pages small;  /* of 2 MiB */
};

/*
 * Counts the CPUs of a kernel CPU list ("2,3,6-9", an empty one has none) and stores the first of
 * them. -1 for anything else, and for numbers above 65535.
 */
int nitro_cpu_list(struct slice text, unsigned int *count, unsigned int *first);

/*
 * Goes through device, CPU pool and huge pages, and calls `said` (may be NULL) for each. 0, or -1
 * with the first fault and its hint.
 */
int nitro_host_examine(struct nitro_host *out, launcher_said *said, void *arg, struct error *err);

/* Whether the machine as read has what this start needs, with an image of `eif_size` bytes. */
int nitro_host_suits(const struct nitro_host *h, const struct launch_request *req,
                     uint64_t eif_size, struct error *err);

#endif
