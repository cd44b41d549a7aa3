/*
 * Which lanes of a host mount take the kernel's requests. Whoever waits for them is woken for each,
 * and to wake a processor that sleeps takes longer than to answer most requests. So one lane takes
 * them as long as that suffices, and the others rest, waiting for replies at most. A lane that
 * cannot take any for now, or sees many of them wait for replies, calls another one, which rests
 * again when it has not been needed for a while.
 *
 * From any thread. At least one lane has the turn as soon as one has joined.
 */
#ifndef CAPSULE_ENCLAVE_MOUNT_TURNS_H
#define CAPSULE_ENCLAVE_MOUNT_TURNS_H

#include "vsock/mountproto.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct mount_turns {
    pthread_mutex_t lock; /* of the following */
    unsigned count;       /* of lanes that have joined */
    unsigned able;        /* that have the turn and can take a request */
    struct {
        int call_fd; /* eventfd, readable when the turn was given to a lane that rested */
        bool has, able;
    } lane[MOUNT_LANES_MAX];
    unsigned most;      /* lanes that many requests are worth */
    atomic_int waiting; /* requests that have no reply yet */
};

void mount_turns_init(struct mount_turns *t);
/* No lane may use them any more. */
void mount_turns_free(struct mount_turns *t);
/*
 * A new lane's index and its descriptor, which stays ours, to be watched and, with
 * mount_turns_called(), read. -1 with errno.
 */
int mount_turns_join(struct mount_turns *t, unsigned *lane);
int mount_turns_call_fd(const struct mount_turns *t, unsigned lane);
void mount_turns_called(struct mount_turns *t, unsigned lane);
/* Whether the lane has the turn. */
bool mount_turns_has(struct mount_turns *t, unsigned lane);
/* The lane cannot take requests for now, or can again. */
void mount_turns_set_able(struct mount_turns *t, unsigned lane, bool able);
/* So many more requests of a lane wait for replies, or less: another one may be called. */
void mount_turns_count(struct mount_turns *t, int more);
/* Few requests wait: so few that one lane would do. */
bool mount_turns_calm(struct mount_turns *t);
/* The lane gives the turn up, if there is another one that takes requests. */
bool mount_turns_rest(struct mount_turns *t, unsigned lane);

#endif
