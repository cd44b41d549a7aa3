/*
 * The app's root as a file system image that stays where the loader put it.
 *
 * The kernel unpacks every ramdisk into memory before init runs, but passes over the image
 * (codec/image_entry.h): so it is in memory once, not twice. `retain_initrd` on the command line
 * makes the kernel keep the ramdisks and show them as /sys/firmware/initrd (Linux 6.8; kernel
 * documentation "The kernel's command-line parameters").
 */
#ifndef CAPSULE_INIT_IMAGE_H
#define CAPSULE_INIT_IMAGE_H

#include "base/error.h"

/*
 * Finds the image in the retained ramdisks and mounts it, read-only, below an overlay whose changes
 * go to a tmpfs; that becomes `target`, a directory it makes. Needs /dev; mounts sysfs on /sys of
 * the initramfs, for good. ERR_NOT_FOUND when there is neither.
 */
int image_mount(const char *target, struct error *err);

#endif
