/*
 * Attributes of directories that the enclave's kernel is about to ask for. Whenever a name comes to
 * a directory or goes, the kernel forgets the directory's attributes, and asks for them (GETATTR)
 * before it looks at the next name in there: a round trip for each file that is made or removed. So
 * the runtime asks at once, in the same breath as the request that changes the directory, and
 * answers the kernel with what the host has said, if nothing has changed since then.
 *
 * That cannot be told from asking later: the kernel keeps requests that change one directory apart,
 * and the host's server answers a lane's requests of that kind in their order. Of what the parent
 * changes by itself, MOUNT_AHEAD_MS may pass unseen.
 *
 * One struct for all lanes of a mount (enclave/mount_lanes.h); any thread may call.
 */
#ifndef CAPSULE_ENCLAVE_MOUNT_AHEAD_H
#define CAPSULE_ENCLAVE_MOUNT_AHEAD_H

#include "base/slice.h"

#include <linux/fuse.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define MOUNT_AHEAD_MS    100
#define MOUNT_AHEAD_SLOTS 16 /* directories */
#define MOUNT_AHEAD_ASK   (sizeof(struct fuse_in_header) + sizeof(struct fuse_getattr_in))
#define MOUNT_AHEAD_REPLY (sizeof(struct fuse_out_header) + sizeof(struct fuse_attr_out))

struct mount_ahead_slot {
    uint64_t dir;    /* node; 0: nothing is known */
    uint64_t unique; /* of our request, as long as it waits for its reply */
    int64_t until_ms;
    struct fuse_attr_out attr;
};

struct mount_ahead {
    pthread_mutex_t lock;
    uint64_t last; /* of our numbers */
    struct mount_ahead_slot slots[MOUNT_AHEAD_SLOTS];
};

void mount_ahead_init(struct mount_ahead *a);
void mount_ahead_free(struct mount_ahead *a);
/*
 * Takes note of a request that goes to the host, of which its first bytes are enough. Returns
 * MOUNT_AHEAD_ASK when the GETATTR that it has written to `ask` should go right behind it, on the
 * same lane; 0 when not.
 */
size_t mount_ahead_note(struct mount_ahead *a, struct slice request, uint8_t *ask);
/* Whether a request or a reply has a number of ours, not of the kernel's. */
bool mount_ahead_is_ours(uint64_t unique);
/*
 * Forgets all, and does not keep what is on its way. For when the host has answered a RENAME: that
 * changes more directories than the kernel keeps other requests away from meanwhile.
 */
void mount_ahead_forget(struct mount_ahead *a);
/* Keeps what the host has said, a reply of that kind which has been checked. */
void mount_ahead_keep(struct mount_ahead *a, struct slice reply, int64_t now_ms);

enum mount_ahead_state {
    MOUNT_AHEAD_UNKNOWN, /* or the request is about something else */
    MOUNT_AHEAD_ASKED,   /* the reply is on its way */
    MOUNT_AHEAD_KNOWN    /* `reply` has it, for the kernel */
};

/* Whether this request of the kernel can be answered without the host. */
enum mount_ahead_state mount_ahead_answer(struct mount_ahead *a, struct slice request,
                                          int64_t now_ms, uint8_t reply[MOUNT_AHEAD_REPLY]);

#endif
