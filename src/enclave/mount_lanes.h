/*
 * What the lanes (mount_lane.h) of a host mount (vsock/mountproto.h) share. Nothing here belongs to
 * the event loop.
 *
 * A fault of one ends all of its mount. From then on the lanes answer the kernel themselves, with
 * EIO (mount_dead.h), and are done with the host: its connections are closed. Only when the mount
 * is not needed any more, or the kernel has not had its first answer yet, they end and close their
 * descriptors of /dev/fuse: with the last one the kernel gives up the mount, and whoever waits for
 * it gets an error. So nobody else may hold copies of these descriptors while using the mount.
 */
#ifndef CAPSULE_ENCLAVE_MOUNT_LANES_H
#define CAPSULE_ENCLAVE_MOUNT_LANES_H

#include "base/error.h"
#include "enclave/mount_ahead.h"
#include "enclave/mount_turns.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* What the lanes of a mount share. */
struct mount_lanes {
    const char *name; /* of the mount, borrowed */
    int over_fd;      /* eventfd, readable for ever once the lanes shall end */
    int dead_fd;      /* likewise once there was a fault, and all gets EIO */
    int finish_fd;    /* likewise when it shall end in good order */
    int cancel_fd;    /* borrowed: the mount is over when it becomes readable */
    int ready_fd;     /* eventfd, readable once FUSE_INIT has been answered */
    atomic_bool over, dead, initialized;
    atomic_flag awake; /* held by the lane that looks for messages without sleeping */
    struct mount_turns turns;
    struct mount_ahead ahead;
    atomic_uint count;    /* of lanes */
    atomic_uint done;     /* of those, when finishing: with nothing left to do */
    pthread_mutex_t lock; /* of the following */
    bool quiet;           /* nobody is told why it ends: not in use yet, or no more */
    struct error why;
};

int mount_lanes_init(struct mount_lanes *g, const char *name, int cancel_fd, struct error *err);
/* All lanes must have been joined. */
void mount_lanes_free(struct mount_lanes *g);
/*
 * Ends the mount, unless it is over, and logs why. From any thread. The lanes go on, if they have
 * carried the answer to FUSE_INIT, and answer EIO.
 */
void mount_lanes_fail(struct mount_lanes *g, const struct error *why);
/* Ends the lanes. From any thread. */
void mount_lanes_abort(struct mount_lanes *g);
/*
 * The lanes end, all together, once the kernel asks for nothing more and every request has its
 * reply: to the host the end of one is the end of the mount. Of a dead mount they end at once.
 */
void mount_lanes_finish(struct mount_lanes *g);
/* From now on a failure is logged; -1 with the reason when there was one before. */
int mount_lanes_go_live(struct mount_lanes *g, struct error *err);
/* From now on it is not. */
void mount_lanes_go_quiet(struct mount_lanes *g);

#endif
