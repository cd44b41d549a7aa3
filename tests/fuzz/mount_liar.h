/*
 * A host of a mount for fuzz_mount.c: it answers the kernel's requests (linux/fuse.h) out of a file
 * system that is always the same, and lies where a script says so. The file system: the root has
 * files whose names begin with `f` (node 2, FILE_LEN bytes), directories `d` (3), links `l` to `f`
 * and `r` to itself; whatever is made gets node 6.
 */
#ifndef CAPSULE_TESTS_FUZZ_MOUNT_LIAR_H
#define CAPSULE_TESTS_FUZZ_MOUNT_LIAR_H

#include "base/slice.h"

#include <pthread.h>

#define LIAR_LANES 2

struct liar {
    pthread_t thread;
    int sockets[LIAR_LANES]; /* its own from liar_start() on */
    struct reader script;    /* a byte a reply, and what that asks for; at its end all is honest */
    uint8_t *request, *reply;
    uint8_t held[4096]; /* a reply that waits for the next one */
    size_t held_len;
    int held_lane;
    bool honest; /* the next reply, whatever the script says */
    bool owing;  /* a reply may be missing: the connections end when nothing more is asked */
    uint64_t last_unique;
};

/*
 * The script is borrowed until liar_join(). Without `at_once` the first reply, FUSE_INIT's, is
 * honest.
 */
void liar_start(struct liar *l, const int *sockets, bool at_once, struct reader script);
/* Waits until the other side has closed all connections. */
void liar_join(struct liar *l);

#endif
