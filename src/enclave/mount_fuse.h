/* FUSE in this kernel (fuse(4), linux/fuse.h): descriptors of /dev/fuse, and mounts on them. */
#ifndef CAPSULE_ENCLAVE_MOUNT_FUSE_H
#define CAPSULE_ENCLAVE_MOUNT_FUSE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Opens /dev/fuse, which is made (character device 10:229, mode 0666) where it is missing. Returns
 * a non-blocking close-on-exec descriptor, or -1.
 */
int mount_fuse_open(struct error *err);
/*
 * Mounts type fuse.hostfs with source hostfs-NAME on `path`, which is made with its parents. The
 * kernel's requests come through `fd` of mount_fuse_open() from then on, FUSE_INIT first.
 */
int mount_fuse_attach(int fd, const char *name, const char *path, bool read_only,
                      struct error *err);
/* Another descriptor of mount_fuse_open()'s kind for the mount of `fd` (FUSE_DEV_IOC_CLONE),
 * or -1. */
int mount_fuse_clone(int fd, struct error *err);
/*
 * Answers the request of this number, read from `fd`, with an errno. 0, also when whoever asked has
 * given up meanwhile; -1 with errno.
 */
int mount_fuse_refuse(int fd, uint64_t unique, int error);
/*
 * Lets the kernel read ahead MOUNT_READ_AHEAD, and keep more to be written, some of it also while
 * others write. `mounts`: how many there are, at least 1. Best effort, as bdi_set() says.
 */
void mount_fuse_tune(const char *path, size_t mounts);
/*
 * Unmounts. Waits for the server of the file system; where it is in use it is taken away all the
 * same, and ends with its last user.
 */
int mount_fuse_detach(const char *path, struct error *err);

#endif
