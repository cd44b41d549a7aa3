#include "hostfs/lane_in.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>

#define WRITE_HEAD (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define SPLICE_MIN (64u * 1024) /* what is shorter costs less when it is copied */

void lane_in_open(struct lane_in *in, int fd, bool splices, atomic_flag *awake)
{
    in->fd = fd;
    in->splices = splices;
    in->awake = awake;
}

/*
 * As recv(). Sleeps only when nothing has come for MOUNT_AWAKE_NS, or another thread is awake like
 * that: it, and whoever asks, would get less of the processors.
 */
static ssize_t receive(const struct lane_in *in, void *to, size_t len)
{
    ssize_t n = recv(in->fd, to, len, MSG_DONTWAIT);
    int64_t until;

    if (n >= 0 || errno != EAGAIN)
        return n;
    if (atomic_flag_test_and_set(in->awake))
        return recv(in->fd, to, len, 0);
    until = clock_mono_ns() + MOUNT_AWAKE_NS;
    do {
        sched_yield();
        n = recv(in->fd, to, len, MSG_DONTWAIT);
    } while (n < 0 && errno == EAGAIN && clock_mono_ns() < until);
    atomic_flag_clear(in->awake);
    return n < 0 && errno == EAGAIN ? recv(in->fd, to, len, 0) : n;
}

/* At least a message's head is in `ahead`. False when the lane ends or fails. */
static bool look_ahead(struct lane_in *in)
{
    if (in->have - in->taken < sizeof(struct fuse_in_header) && in->taken > 0) {
        memmove(in->ahead, in->ahead + in->taken, in->have - in->taken);
        in->have -= in->taken;
        in->taken = 0;
    }
    while (in->have - in->taken < sizeof(struct fuse_in_header)) {
        size_t room = in->writes ? WRITE_HEAD : sizeof(in->ahead);
        ssize_t got = receive(in, in->ahead + in->have, room - in->have);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        in->have += (size_t)got;
    }
    return true;
}

/* Fills the first `len` bytes of `to`. False when the lane ends or fails. */
static bool take(struct lane_in *in, uint8_t *to, size_t len)
{
    size_t n = in->have - in->taken;
    ssize_t got;

    n = n < len ? n : len;
    memcpy(to, in->ahead + in->taken, n);
    in->taken += n;
    for (to += n, len -= n; len > 0; to += got, len -= (size_t)got) {
        got = recv(in->fd, to, len, MSG_WAITALL);
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got <= 0)
            return false;
    }
    return true;
}

/* False when the lane ends or fails. */
static bool await(const struct lane_in *in)
{
    struct pollfd p = {.fd = in->fd, .events = POLLIN};
    int n;

    do
        n = poll(&p, 1, -1);
    while (n < 0 && errno == EINTR);
    return n > 0 && (p.revents & POLLIN);
}

/*
 * Moves up to `len` bytes into the empty pipe, and returns how many before the pipe was full of
 * pieces that fill no pages; -1 when the lane ends or fails.
 */
static ssize_t fill_pipe(const struct lane_in *in, const struct desk *desk, size_t len)
{
    bool waited = false;
    size_t done = 0;

    while (done < len) {
        ssize_t n = splice(in->fd, NULL, desk->pipe[1], NULL, len - done, SPLICE_F_NONBLOCK);

        if (n > 0) {
            done += (size_t)n;
            waited = false;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            return -1;
        } else if (errno == EAGAIN) {
            if (waited) /* there is something, so it is the pipe */
                break;
            if (!await(in))
                return -1;
            waited = true;
        }
    }
    return (ssize_t)done;
}

/* The contents of a WRITE of which exactly the head has come. */
static bool take_contents(struct lane_in *in, struct desk *desk, struct lane_message *m)
{
    uint8_t *to = desk->message + WRITE_HEAD;
    size_t len = m->len - WRITE_HEAD;
    ssize_t n = fill_pipe(in, desk, len);

    if (n < 0) {
        desk_close_pipe(desk);
        return false;
    }
    if ((size_t)n == len) {
        m->piped = len;
        return true;
    }
    return fd_read_full(desk->pipe[0], to, (size_t)n, "a pipe", NULL) == 0 &&
           take(in, to + n, len - (size_t)n);
}

static bool take_message(struct lane_in *in, struct desk *desk, struct lane_message *m)
{
    size_t here = in->have - in->taken;
    struct fuse_in_header head;
    bool suits;

    memcpy(&head, in->ahead + in->taken, sizeof(head));
    in->writes = head.opcode == FUSE_WRITE && m->len >= WRITE_HEAD + SPLICE_MIN;
    suits = in->writes && in->splices && desk->pipe[0] >= 0 && here <= WRITE_HEAD &&
            m->len - WRITE_HEAD <= MOUNT_IO_MAX;
    if (suits)
        return take(in, desk->message, WRITE_HEAD) && take_contents(in, desk, m);
    return take(in, desk->message, m->len);
}

struct lane_message lane_in_next(struct lane_in *in, struct desk *desk)
{
    struct lane_message m = {0};
    uint32_t len;

    if (!look_ahead(in))
        return m;
    memcpy(&len, in->ahead + in->taken, sizeof(len));
    if (len < sizeof(struct fuse_in_header) || len > MOUNT_MESSAGE_MAX) {
        log_warn("hostfs", "the enclave sent a message of a length that none has",
                 kv_uint("length", len));
        return m;
    }
    m.len = len;
    if (!take_message(in, desk, &m))
        m.len = 0;
    return m;
}
