/*
 * What becomes of a host mount that is over (enclave/mount_lanes.h): as long as the kernel has it,
 * each request of its gets EIO from here, and no host has a part in that. Were the descriptors of
 * /dev/fuse closed instead, programs would get ENOTCONN and ECONNABORTED, which no disk gives.
 *
 * All of a descriptor belongs to one thread: what was read from it is answered on it, once.
 */
#ifndef CAPSULE_ENCLAVE_MOUNT_DEAD_H
#define CAPSULE_ENCLAVE_MOUNT_DEAD_H

#include "base/slice.h"
#include "enclave/fuse_check.h"

#include <stddef.h>
#include <stdint.h>

/* Answers a request by its number, if it still waits. */
void mount_dead_answer(int fuse_fd, uint64_t unique);
/* Answers a request (linux/fuse.h) that was read from `fuse_fd`, if it is to have a reply. */
void mount_dead_refuse(int fuse_fd, struct slice request);
/* Answers all that `asked` knows to wait for a reply on `fuse_fd`; `asked` stays as it is. */
void mount_dead_refuse_asked(int fuse_fd, const struct fuse_check *asked);
/*
 * Answers what the kernel asks on the non-blocking `fuse_fd` until one of the `until` descriptors,
 * at most MOUNT_DEAD_UNTIL_MAX, is readable or the kernel has given up the mount. Sleeps when
 * nothing is asked. `buffer` is page-aligned anonymous memory of `len` bytes, enough for the
 * longest request; its pages are given back whenever nothing is asked.
 */
void mount_dead_serve(int fuse_fd, uint8_t *buffer, size_t len, const int *until, size_t count);

#define MOUNT_DEAD_UNTIL_MAX 4

#endif
