/*
 * Host mounts in the sandbox: its runtime may not mount, so the launcher does it while it builds
 * the view of files, and hands the descriptors of /dev/fuse over (fuse(4)). The kernel wants the
 * device opened and the file system mounted in one user namespace, hence by the child.
 */
#ifndef CAPSULE_LAUNCH_SANDBOX_FUSE_H
#define CAPSULE_LAUNCH_SANDBOX_FUSE_H

#include "launch/launcher.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define SANDBOX_LANES_MAX 4   /* descriptors a mount */
#define SANDBOX_FUSE_MAX  256 /* descriptors in all */

struct fuse_place {
    const char *path; /* below the root, without a leading slash */
    char *source;     /* "hostfs-NAME" */
    char *option;     /* "NAME=FD,FD": of the runtime's --mount-fds */
    bool read_only;
    int fds[SANDBOX_LANES_MAX]; /* the child's */
    dev_t fs;                   /* the child's: device number of the mount; 0: not known */
};

struct fuse_plan {
    struct fuse_place *places;
    size_t count;
    size_t lanes; /* of each */
};

/* 0, or -1 and what keeps this process from /dev/fuse, with what mends it. */
int fuse_can_open(struct error *err);
/*
 * What the child will mount; its descriptors get numbers from `first_fd` on, a place after the
 * other. The request's strings are borrowed. Without FUSE: an error when a mount is required, else
 * a warning and an empty plan, and the runtime goes on without them.
 */
int fuse_plan_make(const struct launch_request *req, int first_fd, struct fuse_plan *out,
                   struct error *err);
void fuse_plan_free(struct fuse_plan *p);

/*
 * For the parent, of a mount that its child has made: lets the kernel read ahead MOUNT_READ_AHEAD,
 * as the runtime does in a machine of its own. Best effort: only the machine's root may, and where
 * /sys is read-only nobody.
 */
void fuse_read_ahead(dev_t fs);

/* The rest is for the child: it allocates nothing. */

/* Before the change of identity, while the device is ours to open. */
int fuse_plan_open(const struct fuse_plan *p, struct error *err);
/* Notes the device number of the place's mount, of which `fd` is a descriptor. */
void fuse_place_note(struct fuse_place *place, int fd);
/* Makes the other descriptors of a place clones of the first, which has been mounted. */
int fuse_place_clone(const struct fuse_place *place, size_t lanes, struct error *err);

#endif
