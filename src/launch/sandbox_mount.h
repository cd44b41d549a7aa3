/*
 * The sandbox's view of files: the image read-only below, memory above, its own /dev, /proc, /run
 * and /tmp, and nothing of the machine. Part of sandbox_enter: allocates nothing.
 */
#ifndef CAPSULE_LAUNCH_SANDBOX_MOUNT_H
#define CAPSULE_LAUNCH_SANDBOX_MOUNT_H

#include "launch/sandbox_enter.h"

/* O_PATH descriptors in the new mount namespace; carrier may be -1. */
struct mount_places {
    int rootfs, mount_point, disk, carrier;
};

/*
 * Leaves the process in its new root. *carrier is then a descriptor of the carrier directory as a
 * detached mount, whose `..` leads nowhere. *disk_upper says that changed files go to the disk,
 * because tmpfs here cannot carry the attributes that overlayfs needs (before Linux 6.6).
 */
int sandbox_mount_all(const struct enter_plan *plan, const struct mount_places *places,
                      int *carrier, bool *disk_upper, struct error *err);

#endif
