/*
 * What comes in on a lane (vsock/mountproto.h): one request after the other, cut out of the
 * enclave's stream of bytes. Belongs to one thread at a time.
 */
#ifndef CAPSULE_HOSTFS_LANE_IN_H
#define CAPSULE_HOSTFS_LANE_IN_H

#include "hostfs/desk.h"

#include <stdatomic.h>
#include <stdbool.h>

#define LANE_READ_AHEAD 16384 /* so that a small message costs one system call */

struct lane_in {
    int fd;
    bool splices; /* contents may be spliced from the socket */
    bool writes;  /* the last request was a long WRITE: of the next one the head is read first */
    atomic_flag *awake; /* held by the thread that looks for a message without sleeping */
    uint8_t ahead[LANE_READ_AHEAD] __attribute__((aligned(8)));
    size_t have, taken;
};

struct lane_message {
    size_t len;   /* at least a struct fuse_in_header; 0: the lane is at its end */
    size_t piped; /* of that, the last bytes, which are in the desk's pipe; the rest in `message` */
};

/*
 * A blocking socket, from which contents may be spliced or not. `awake` is shared by all lanes of
 * the process and outlives them.
 */
void lane_in_open(struct lane_in *in, int fd, bool splices, atomic_flag *awake);
/*
 * Waits for the next request. The end is also a length that no request has, which is logged. Only
 * the contents of a WRITE go into the pipe.
 */
struct lane_message lane_in_next(struct lane_in *in, struct desk *desk);

#endif
