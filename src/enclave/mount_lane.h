/*
 * One lane of a host mount (mount_lanes.h): a thread that carries the kernel's requests from a
 * descriptor of /dev/fuse to a connection, and the host's replies, once they are checked
 * (fuse_check.h), back.
 */
#ifndef CAPSULE_ENCLAVE_MOUNT_LANE_H
#define CAPSULE_ENCLAVE_MOUNT_LANE_H

#include "enclave/mount_lanes.h"

struct mount_lane;

/*
 * Starts a lane, which owns both descriptors from here on, also when this fails. The calling
 * thread has all signals blocked, and so has the lane.
 */
int mount_lane_start(struct mount_lanes *g, int fuse_fd, int socket, struct mount_lane **out,
                     struct error *err);
/* Waits for the lane's end and frees it. NULL is fine. */
void mount_lane_join(struct mount_lane *l);

#endif
