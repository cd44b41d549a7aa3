#include "hostfs/desk.h"

#include "base/file.h"
#include "base/mem.h"
#include "vsock/mountproto.h"

#include <fcntl.h>
#include <string.h>

void desks_init(struct desks *d)
{
    *d = (struct desks){0};
    pthread_mutex_init(&d->lock, NULL);
    for (size_t i = 0; i < DESK_PIPES; i++) {
        int *ends = d->pipes[i];

        if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
            ends[0] = ends[1] = -1;
        } else if (fcntl(ends[1], F_SETPIPE_SZ, MOUNT_IO_MAX) < 0) {
            fd_close(&ends[0]);
            fd_close(&ends[1]);
        }
    }
}

static struct desk *make(const int *pipe)
{
    struct desk *desk = xcalloc(1, sizeof(*desk));

    memcpy(desk->pipe, pipe, sizeof(desk->pipe));
    desk->message = aligned_alloc(4096, (MOUNT_MESSAGE_MAX + 4095) & ~4095u);
    desk->space = aligned_alloc(4096, MOUNT_IO_MAX);
    if (!desk->message || !desk->space)
        abort(); /* out of memory */
    return desk;
}

struct desk *desk_take(struct desks *d)
{
    static const int none[2] = {-1, -1};
    const int *pipe = none;
    struct desk *desk = NULL, **from;

    pthread_mutex_lock(&d->lock);
    from = d->piped ? &d->piped : &d->plain;
    if (!d->piped && d->pipes_given < DESK_PIPES) {
        pipe = d->pipes[d->pipes_given++];
    } else if (*from) {
        desk = *from;
        *from = desk->next;
    }
    pthread_mutex_unlock(&d->lock);
    return desk ? desk : make(pipe);
}

void desk_give(struct desks *d, struct desk *desk)
{
    struct desk **to = desk->pipe[0] >= 0 ? &d->piped : &d->plain;

    pthread_mutex_lock(&d->lock);
    desk->next = *to;
    *to = desk;
    pthread_mutex_unlock(&d->lock);
}

void desk_close_pipe(struct desk *desk)
{
    fd_close(&desk->pipe[0]);
    fd_close(&desk->pipe[1]);
}
