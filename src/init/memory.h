/* What happens when an enclave's memory runs out. */
#ifndef CAPSULE_INIT_MEMORY_H
#define CAPSULE_INIT_MEMORY_H

#include "base/error.h"

/*
 * Has the kernel kill a process as soon as the pages used within the last second do not fit into
 * memory (Linux, Documentation/admin-guide/mm/multigen_lru.rst, min_ttl_ms). An enclave has no
 * swap: without this its kernel goes on dropping the programs' own text, which it has to read from
 * the image again at once, and takes minutes to find that this leads nowhere. Needs sysfs on /sys.
 * A kernel without that setting is left as it is; anything else that fails is an error.
 */
int memory_limit_thrashing(struct error *err);

#endif
