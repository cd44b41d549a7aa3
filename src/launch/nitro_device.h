/*
 * The driver's commands, one function each (spec/nitro-host.md section 3). The structures and
 * numbers are those of the kernel's <linux/nitro_enclaves.h>. Descriptors stay the caller's.
 */
#ifndef CAPSULE_LAUNCH_NITRO_DEVICE_H
#define CAPSULE_LAUNCH_NITRO_DEVICE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NITRO_DEVICE "/dev/nitro_enclaves"

/* What gives an instance a CPU pool and huge pages. */
#define NITRO_HINT_ALLOCATOR                                                                       \
    "set memory_mib and cpu_count in /etc/nitro_enclaves/allocator.yaml, then: systemctl restart " \
    "nitro-enclaves-allocator"

/*
 * Makes an enclave that has nothing yet and stores its slot. Returns its descriptor, which the
 * caller owns and whose closing ends it, or -1.
 */
int nitro_create(uint64_t *slot, struct error *err);
/* Where in the enclave's memory the image file goes. */
int nitro_image_offset(int enclave, uint64_t *offset, struct error *err);
/* Gives it memory. err->sys is NE_ERR_MEM_MAX_REGIONS when it has too many pieces. */
int nitro_add_memory(int enclave, const void *ptr, uint64_t size, struct error *err);
/* Gives it a CPU of the pool, of the driver's choice: cores are used up one by one. */
int nitro_add_cpu(int enclave, uint32_t *id, struct error *err);
/* Starts it. *cid is the one it has then; 0 lets the hypervisor choose. */
int nitro_start_enclave(int enclave, bool debug, uint64_t *cid, struct error *err);

/*
 * error_sys() for the driver, which has error numbers of its own, 256 to 275, that the C library
 * does not know. Sets the hint where something can be done.
 */
void nitro_error(struct error *err, int sys, const char *what);

#endif
