#include "vsock/carrier.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "vsock/carrier_priv.h"

#include <errno.h>
#include <event2/event.h>
#include <poll.h>

#define LATER_MS 5

struct dial {
    struct carrier *carrier;
    struct attempt attempt;
    struct event *ready; /* on the attempt's descriptor; its events change with what it wants */
    struct event *timer; /* the next try, or the deadline */
    int64_t deadline_ms;
    void (*done)(void *arg, int fd, const struct error *err);
    void *arg;
};

int carrier_open(struct event_base *base, const struct carrier_config *config, struct carrier **out,
                 struct error *err)
{
    struct carrier *c = xcalloc(1, sizeof(*c));

    c->ops = config->kind == CARRIER_VSOCK ? &carrier_vsock_ops : &carrier_unix_ops;
    c->base = base;
    c->side = config->side;
    c->cid = config->cid;
    c->no_half_close = config->no_half_close;
    atomic_store(&c->host_cid, config->host_cid);
    c->dir_fd = config->kind == CARRIER_UNIX ? config->dir_fd : -1;
    c->door_fd = config->door_fd;
    if (c->ops->open(c, err) < 0) {
        free(c);
        return -1;
    }
    *out = c;
    return 0;
}

void carrier_free(struct carrier *c)
{
    if (!c)
        return;
    c->ops->close(c);
    fd_close(&c->dir_fd);
    free(c);
}

uint32_t carrier_cid(const struct carrier *c)
{
    return c->cid;
}

bool carrier_half_closes(const struct carrier *c)
{
    return !c->no_half_close;
}

int carrier_listen(struct carrier *c, uint32_t port, const struct listener_spec *spec,
                   struct listener **out, struct error *err)
{
    struct listener_spec own = *spec;

    return c->ops->listen(c, port, &own, out, err);
}

void carrier_unlisten(struct carrier *c, struct listener *l)
{
    if (l)
        c->ops->unlisten(c, l);
}

/* ---- dialling ---- */

static void set_timer(struct dial *d, int64_t ms)
{
    struct timeval tv = clock_timeval(ms);

    event_add(d->timer, &tv);
}

static void finish(struct dial *d, const struct error *err)
{
    void (*done)(void *, int, const struct error *) = d->done;
    void *arg = d->arg;
    int fd = d->attempt.fd;

    if (!err)
        d->attempt.fd = -1;
    dial_cancel(d);
    done(arg, err ? -1 : fd, err);
}

static void on_ready(evutil_socket_t fd, short what, void *arg);

static void step(struct dial *d)
{
    int before = d->attempt.stage;
    struct error err;
    enum attempt_want want = d->carrier->ops->advance(d->carrier, &d->attempt, &err);

    if (want == ATTEMPT_DONE || want == ATTEMPT_FAILED) {
        finish(d, want == ATTEMPT_DONE ? NULL : &err);
        return;
    }
    if (before != ATTEMPT_HANDSHAKE && d->attempt.stage == ATTEMPT_HANDSHAKE)
        d->deadline_ms = clock_mono_ms() + CARRIER_HANDSHAKE_MS;
    if (d->ready)
        event_free(d->ready);
    d->ready = NULL;
    if (want == ATTEMPT_LATER) {
        set_timer(d, LATER_MS);
        return;
    }
    d->ready = event_new(d->carrier->base, d->attempt.fd, want == ATTEMPT_READ ? EV_READ : EV_WRITE,
                         on_ready, d);
    if (!d->ready)
        abort(); /* out of memory */
    event_add(d->ready, NULL);
    set_timer(d, d->deadline_ms - clock_mono_ms());
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    step(arg);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct dial *d = arg;
    struct error err;

    (void)fd;
    (void)what;
    if (clock_mono_ms() < d->deadline_ms) {
        step(d);
        return;
    }
    error_set(&err, ERR_TIMEOUT, "connecting to port %u: no answer", d->attempt.port);
    err.sys = ETIMEDOUT;
    finish(d, &err);
}

struct dial *carrier_dial(struct carrier *c, uint32_t port,
                          void (*done)(void *arg, int fd, const struct error *err), void *arg)
{
    struct dial *d = xcalloc(1, sizeof(*d));

    d->carrier = c;
    d->attempt = (struct attempt){.port = port, .fd = -1};
    d->deadline_ms = clock_mono_ms() + CARRIER_CONNECT_MS;
    d->done = done;
    d->arg = arg;
    d->timer = evtimer_new(c->base, on_timer, d);
    if (!d->timer)
        abort(); /* out of memory */
    /* The first step runs from the loop, so that `done` never runs inside this call. */
    event_active(d->timer, EV_TIMEOUT, 0);
    return d;
}

void dial_cancel(struct dial *d)
{
    if (!d)
        return;
    if (d->ready)
        event_free(d->ready);
    event_free(d->timer);
    fd_close(&d->attempt.fd);
    free(d);
}

int carrier_dial_wait(const struct carrier *c, uint32_t port, int timeout_ms, struct error *err)
{
    struct attempt a = {.port = port, .fd = -1};
    int64_t deadline = clock_mono_ms() + timeout_ms;

    for (;;) {
        enum attempt_want want = c->ops->advance(c, &a, err);
        struct pollfd p = {.fd = a.fd, .events = want == ATTEMPT_READ ? POLLIN : POLLOUT};
        int64_t left = deadline - clock_mono_ms();

        if (want == ATTEMPT_DONE)
            return a.fd;
        if (want == ATTEMPT_FAILED)
            break;
        if (left <= 0) {
            error_set(err, ERR_TIMEOUT, "connecting to port %u: no answer", port);
            break;
        }
        if (want == ATTEMPT_LATER)
            poll(NULL, 0, LATER_MS);
        else
            poll(&p, 1, (int)left);
    }
    fd_close(&a.fd);
    return -1;
}
