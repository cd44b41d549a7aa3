/*
 * Directories for the UNIX carrier's sockets: short-named (sun_path holds 107 bytes), private, and
 * removed also when their owner was killed.
 */
#ifndef CAPSULE_LAUNCH_CARRIER_DIR_H
#define CAPSULE_LAUNCH_CARRIER_DIR_H

#include "base/error.h"

struct carrier_dir {
    char *path;  /* absolute; at most 64 bytes, so that 43 are left for "/NAME" */
    int lock_fd; /* holds flock() on PATH.lock: this process is alive */
};
#define CARRIER_DIR_NONE ((struct carrier_dir){.lock_fd = -1})

/*
 * Makes a fresh directory, mode 0700, below xdg_runtime_dir() of a path that is short enough.
 * Directories there whose owner is dead are removed first.
 */
int carrier_dir_make(struct carrier_dir *out, struct error *err);

/* Removes the directory with the sockets in it and frees; safe on CARRIER_DIR_NONE. For CLEANUP. */
void carrier_dir_remove(struct carrier_dir *d);

/* Removes the directories in `parent` whose owner is dead. */
void carrier_dir_sweep(const char *parent);

#endif
