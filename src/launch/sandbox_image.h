/*
 * Unpacked images: the app ramdisk of an EIF as a directory tree, kept between runs.
 *
 *   CACHE/lock           flock: held while unpacking and evicting
 *   CACHE/index/ID       symbolic link whose target is a digest: which ramdisk the EIF with this
 *                        device, inode, size, mtime and ctime has, so that a file seen before is
 *                        not read again
 *   CACHE/trees/KEY/     KEY: SHA-384 of the ramdisk and the tag of the id map
 *     x/                 what the ramdisk holds: launch.json, rootfs/; owned by the map's ids
 *     size               bytes on disk, decimal
 *
 * KEY/ itself belongs to the user, mode 0700; its flock is shared while a sandbox uses it, and its
 * mtime is the time of the last use. Trees appear by rename, whole.
 */
#ifndef CAPSULE_LAUNCH_SANDBOX_IMAGE_H
#define CAPSULE_LAUNCH_SANDBOX_IMAGE_H

#include "launch/idmap.h"

#include "base/slice.h"

#define SANDBOX_CACHE_BYTES (10ull << 30) /* least recently used trees beyond this go */

struct sandbox_image {
    char *rootfs;      /* path of the unpacked root */
    struct buf launch; /* launch.json */
    int lock_fd;       /* keeps the tree from being evicted */
    bool unpacked_now; /* it was not in the cache */
};
#define SANDBOX_IMAGE_NONE ((struct sandbox_image){.lock_fd = -1})

/* Finds or makes the tree of the EIF open at `eif_fd`; `name` is for messages. */
int sandbox_image_open(const char *cache, int eif_fd, const char *name, const struct idmap *map,
                       struct sandbox_image *out, struct error *err);
/* Lets go of it. Safe on SANDBOX_IMAGE_NONE. */
void sandbox_image_close(struct sandbox_image *image);

#endif
