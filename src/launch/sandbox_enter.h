/*
 * The way from a fresh process in fresh namespaces to /sbin/capsule-runtime as PID 1
 * (namespaces(7), mount_namespaces(7), pivot_root(2)). It runs between clone3() and execve() of a
 * process that may have threads, so it allocates nothing and takes no lock; everything it needs is
 * in the plan.
 */
#ifndef CAPSULE_LAUNCH_SANDBOX_ENTER_H
#define CAPSULE_LAUNCH_SANDBOX_ENTER_H

#include "launch/idmap.h"
#include "launch/sandbox_fuse.h"

#include <sys/types.h>

/* The runtime's descriptors: launcher.h tells its authors. */
#define SANDBOX_FD_CARRIER 3
#define SANDBOX_FD_LAUNCH  4
#define SANDBOX_FD_DOOR    5
#define SANDBOX_FD_FUSE    7 /* and above; 6 closes on the way */

struct enter_plan {
    const struct idmap *map;
    /* Paths outside; all are opened before the identity changes. */
    const char *rootfs;
    const char *mount_point; /* an empty directory */
    const char *disk;        /* directory with upper/ and work/, used when tmpfs has no xattrs */
    const char *carrier;     /* NULL: none */
    int console_fd, launch_fd, door_fd, sync_fd; /* door_fd: -1 without a carrier */
    char size[32];                               /* of each writable tmpfs: tmpfs(5) size=, bytes */
    char inodes[32];
    unsigned int cpu_count;
    unsigned int cpu_offset; /* which CPUs of those we may use come first */
    const struct fuse_plan *fuse;
    char *const *argv;
};

/* What the child says on sync_fd, a SOCK_SEQPACKET socket: one of these a message. */
struct enter_report {
    enum {
        ENTER_WAITING, /* goes on after one byte: first for map and control groups, then again */
        ENTER_FAILED,
    } what;
    /* With the second ENTER_WAITING: */
    bool disk_upper;
    dev_t mounts[SANDBOX_FUSE_MAX]; /* of plan->fuse, in its order; the rest is 0 */
    struct error err;
};

/* Never returns: the socket closes without a word when the runtime has been executed. */
_Noreturn void sandbox_enter(const struct enter_plan *plan);

#endif
