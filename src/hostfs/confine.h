/*
 * Shutting a file server in: after this the process sees one directory and its own /proc/self/fd,
 * and keeps only the capabilities that owners and permissions of files need. filter.h takes the
 * system calls away, once all threads run.
 */
#ifndef CAPSULE_HOSTFS_CONFINE_H
#define CAPSULE_HOSTFS_CONFINE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* What keeps the process from other files, the best first. */
enum confined_way {
    CONFINED_MOUNTS,   /* a mount namespace with nothing else in it */
    CONFINED_LANDLOCK, /* chroot, and files elsewhere cannot be opened, made or removed */
    CONFINED_CHROOT,   /* chroot alone: a hostile process can climb out of it */
};

struct confined {
    enum confined_way way;
    int root_fd; /* O_PATH; with CONFINED_MOUNTS on a mount of its own, nodev, nosuid, noexec and,
                    when asked, read-only */
    /* Files can be made for any owner. Else everything belongs to the one user whom we run as,
     * who is shown as 0. */
    bool set_owner;
    uint32_t files_max; /* descriptors this process may have open */
};

/*
 * `dir_fd` is the directory to be served. As root this takes a mount namespace of its own, as
 * anybody else a user namespace as well; root that may not, as in a container, gets the next best
 * of confined_way. Sets the working directory to /proc/self/fd, umask 0, no
 * core dumps. To be called before there are threads; on failure the process is to end.
 */
int confine_enter(int dir_fd, bool read_only, struct confined *out, struct error *err);

#endif
