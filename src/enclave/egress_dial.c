#include "enclave/egress_dial.h"

#include "base/clock.h"
#include "base/file.h"
#include "codec/egress_frame.h"
#include "vsock/addr.h"
#include "vsock/carrier.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <sys/socket.h>

struct egress_dial {
    struct event_base *base;
    void (*done)(void *arg, int fd, const struct egress_failure *failure);
    void *arg;
    struct dial *link;
    struct event *io;
    int fd;
    int64_t deadline_ms; /* of request and reply: a host that drips gains nothing */
    struct buf out;      /* request frame, from `sent` on still to be written */
    size_t sent;
    struct buf in; /* reply frame */
};

static void release(struct egress_dial *d)
{
    dial_cancel(d->link);
    if (d->io)
        event_free(d->io);
    fd_close(&d->fd);
    buf_free(&d->out);
    buf_free(&d->in);
    free(d);
}

void egress_dial_cancel(struct egress_dial *d)
{
    if (d)
        release(d);
}

static void finish(struct egress_dial *d, int fd, const struct egress_failure *failure)
{
    void (*done)(void *, int, const struct egress_failure *) = d->done;
    void *arg = d->arg;

    if (fd >= 0)
        d->fd = -1;
    event_free(d->io);
    d->io = NULL;
    /* `failure` may point into the buffers, so they go last. */
    done(arg, fd, failure);
    release(d);
}

static void fail_link(struct egress_dial *d, const char *message)
{
    finish(d, -1, &(struct egress_failure){503, "host-unavailable", message});
}

static void deliver(struct egress_dial *d, const struct egress_reply *reply)
{
    struct egress_failure failure = {.status = 502, .reason = egress_kind_name(reply->kind)};
    char message[EGRESS_MESSAGE_MAX + 64];

    if (reply->ok) {
        finish(d, d->fd, NULL);
        return;
    }
    if (reply->kind == EGRESS_TIMEOUT)
        failure.status = 504;
    else if (reply->kind == EGRESS_POLICY)
        failure.status = 403;
    snprintf(message, sizeof(message), "%s",
             reply->message[0] ? reply->message : "no reason given");
    failure.message = message;
    finish(d, -1, &failure);
}

/* How many bytes to read next; never one that belongs to the tunnel. 0: the frame is complete. */
static int bytes_wanted(struct egress_dial *d, size_t *want, struct error *err)
{
    size_t len;
    int rc = egress_frame_length(buf_slice(&d->in), &len, err);

    if (rc < 0)
        return -1;
    *want = rc == 0 ? 4 - d->in.len : 4 + len - d->in.len;
    return 0;
}

static void wait_for(struct egress_dial *d, short what);

static void read_reply(struct egress_dial *d)
{
    struct egress_reply reply;
    struct error err;
    size_t want;

    for (;;) {
        uint8_t *space;
        ssize_t got;

        if (bytes_wanted(d, &want, &err) < 0) {
            fail_link(d, err.msg);
            return;
        }
        if (want == 0)
            break;
        space = buf_reserve(&d->in, want);
        got = space ? recv(d->fd, space, want, 0) : -1;
        if (got > 0) {
            d->in.len += (size_t)got;
            continue;
        }
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            wait_for(d, EV_READ);
            return;
        }
        fail_link(d, "the host closed the connection without an answer");
        return;
    }
    if (egress_reply_parse(slice_of(d->in.ptr + 4, d->in.len - 4), &reply, &err) < 0)
        fail_link(d, err.msg);
    else
        deliver(d, &reply);
}

static void write_request(struct egress_dial *d)
{
    ssize_t put = send(d->fd, d->out.ptr + d->sent, d->out.len - d->sent, MSG_NOSIGNAL);

    if (put < 0 && errno != EAGAIN && errno != EINTR) {
        fail_link(d, "the host closed the connection");
        return;
    }
    d->sent += put > 0 ? (size_t)put : 0;
    wait_for(d, d->sent == d->out.len ? EV_READ : EV_WRITE);
}

static void on_io(evutil_socket_t fd, short what, void *arg)
{
    struct egress_dial *d = arg;

    (void)fd;
    if (what & EV_TIMEOUT)
        finish(d, -1, &(struct egress_failure){504, "timeout", "the host did not answer in time"});
    else if (d->sent < d->out.len)
        write_request(d);
    else
        read_reply(d);
}

static void wait_for(struct egress_dial *d, short what)
{
    struct timeval limit = clock_left(d->deadline_ms);

    if (d->io)
        event_free(d->io);
    d->io = event_new(d->base, d->fd, what, on_io, d);
    if (!d->io)
        abort(); /* out of memory */
    event_add(d->io, &limit);
}

static void on_link(void *arg, int fd, const struct error *err)
{
    struct egress_dial *d = arg;

    d->link = NULL;
    d->fd = fd;
    if (fd < 0) {
        d->io = event_new(d->base, -1, 0, on_io, d);
        fail_link(d, err->msg);
        return;
    }
    d->deadline_ms = clock_mono_ms() + EGRESS_EXCHANGE_MS;
    wait_for(d, EV_WRITE);
}

struct egress_dial *
egress_dial_start(struct event_base *base, struct carrier *carrier,
                  const struct policy_target *target,
                  void (*done)(void *arg, int fd, const struct egress_failure *failure), void *arg)
{
    struct egress_dial *d = xcalloc(1, sizeof(*d));
    uint32_t port = 0;

    d->base = base;
    d->done = done;
    d->arg = arg;
    d->fd = -1;
    d->out = BUF(EGRESS_FRAME_MAX + 4);
    d->in = BUF(EGRESS_FRAME_MAX + 4);
    /* A checked target always fits, and a carrier has a valid CID. */
    if (egress_request_write(target->host, target->port, &d->out) < 0 ||
        vsock_host_port(carrier_cid(carrier), VSOCK_OFFSET_EGRESS, &port, NULL) < 0)
        abort();
    d->link = carrier_dial(carrier, port, on_link, d);
    return d;
}
