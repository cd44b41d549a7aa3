/* The connections of a host mount up to the first FUSE message (vsock/mountproto.h). */
#ifndef CAPSULE_ENCLAVE_MOUNT_LINK_H
#define CAPSULE_ENCLAVE_MOUNT_LINK_H

#include "base/error.h"
#include "vsock/carrier.h"
#include "vsock/mountproto.h"

#include <stdbool.h>
#include <stdint.h>

struct mount_link {
    const struct carrier *carrier;
    unsigned index; /* of the mount in the manifest */
    const char *name;
    int cancel_fd;                      /* ends all waiting when it becomes readable */
    uint8_t session[MOUNT_SESSION_LEN]; /* drawn with lane 0 */
};

/* What the host says about the mount. */
struct mount_offer {
    uint32_t lanes; /* 1 to MOUNT_LANES_MAX */
    bool read_only;
};

/*
 * Connects one lane and greets the host; blocks, so not for the loop. Returns a non-blocking
 * descriptor, or -1. `offer` may be NULL.
 */
int mount_link_open(struct mount_link *l, uint32_t lane, struct mount_offer *offer,
                    struct error *err);

#endif
