/* The file systems of an enclave: early /dev, the move to the app root, and what is mounted there.
 */
#ifndef CAPSULE_INIT_ROOT_H
#define CAPSULE_INIT_ROOT_H

#include "base/error.h"

/*
 * Mounts devtmpfs on /dev of the initramfs, so that there is a console to complain on. It being
 * there already (the kernel can do it) is fine.
 */
int root_mount_dev(struct error *err);

/*
 * Makes /rootfs of the initramfs, or without one the file system image (image.h), the root of this
 * process and, being PID 1, of the machine, with /dev moved along and working directory "/". The
 * initramfs cannot be unmounted or pivoted away, so /rootfs is bound on itself and that mount moved
 * over it. On failure nothing is undone.
 */
int root_enter(struct error *err);

/*
 * Mounts proc, sysfs, tmpfs (/run, /tmp, /dev/shm), devpts and cgroup2 on the present root and
 * makes the /dev/fd links. Missing mount points are made. A kernel without devpts or cgroup2 is put
 * up with, and said on standard error; anything else that fails is an error.
 */
int root_mount_all(struct error *err);

#endif
