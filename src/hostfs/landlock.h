/*
 * Landlock (Linux, Documentation/userspace-api/landlock.rst): a process that gives up what lies
 * outside one directory, which it needs no rights for.
 */
#ifndef CAPSULE_HOSTFS_LANDLOCK_H
#define CAPSULE_HOSTFS_LANDLOCK_H

#include "base/error.h"

#include <stdbool.h>

/*
 * From now on this thread, and those that it starts, open, list, make, remove, rename and link
 * files below `dir_fd` only, and run none; with `read_only` they open for reading and list only.
 * Names, attributes and permissions elsewhere stay in reach. Needs "no new privileges".
 *
 * Returns 1; 0 where the kernel has no Landlock, or one before Linux 5.19, which lets no file move
 * from one directory to another; -1 with err.
 */
int landlock_keep_below(int dir_fd, bool read_only, struct error *err);

#endif
