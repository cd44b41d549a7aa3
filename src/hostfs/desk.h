/*
 * The memory of requests at work: their messages, room for what the answers hold, and pipes for
 * long contents. From any thread. Pages that no request needs are never touched.
 */
#ifndef CAPSULE_HOSTFS_DESK_H
#define CAPSULE_HOSTFS_DESK_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define DESK_PIPES                                                                                 \
    8 /* of MOUNT_IO_MAX: a user may have 64 MiB of them, and other things need some */

struct desk {
    uint8_t *message; /* MOUNT_MESSAGE_MAX bytes, aligned for any type */
    uint8_t *space;   /* MOUNT_IO_MAX bytes */
    int pipe[2];      /* empty, and never waits; -1: none */
    struct desk *next;
};

struct desks {
    pthread_mutex_t lock;
    /* Those with a pipe are taken first, and of them the last used: its memory is still cached. */
    struct desk *piped, *plain;
    int pipes[DESK_PIPES][2]; /* for the first desks */
    size_t pipes_given;
};

/* Makes the pipes; where none may be had contents are copied. */
void desks_init(struct desks *d);
/* Never NULL: without memory the process ends. */
struct desk *desk_take(struct desks *d);
void desk_give(struct desks *d, struct desk *desk);
/* Something may be left in the pipe: it is given up. */
void desk_close_pipe(struct desk *desk);

#endif
