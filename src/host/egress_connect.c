#include "host/egress_connect.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <sys/socket.h>

struct attempt {
    struct connect *connect;
    struct event *event;
    int fd;
};

struct connect {
    struct event_base *base;
    struct ip_addr addrs[CONNECT_MAX];
    struct attempt attempts[CONNECT_MAX];
    size_t count, started, failed;
    uint16_t port;
    int first_error;
    int64_t deadline_ms;
    struct event *timer; /* next attempt, or the end */
    void (*done)(void *arg, int fd, int sys);
    void *arg;
};

static socklen_t sockaddr_of(const struct ip_addr *addr, uint16_t port,
                             struct sockaddr_storage *out)
{
    memset(out, 0, sizeof(*out));
    if (addr->family == 4) {
        struct sockaddr_in *in = (void *)out;

        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, addr->bytes, 4);
        return sizeof(*in);
    } else {
        struct sockaddr_in6 *in = (void *)out;

        in->sin6_family = AF_INET6;
        in->sin6_port = htons(port);
        memcpy(&in->sin6_addr, addr->bytes, 16);
        return sizeof(*in);
    }
}

/* ---- order ---- */

/* The precedence column of RFC 6724 section 2.1. */
static int precedence(const struct ip_addr *addr)
{
    static const struct {
        const char *net;
        unsigned prefix;
        int value;
    } table[] = {
        {"::1", 128, 50}, {"2002::", 16, 30}, {"2001::", 32, 5},
        {"fc00::", 7, 3}, {"fec0::", 10, 1},  {"3ffe::", 16, 1},
    };
    struct ip_addr net;

    if (addr->family == 4)
        return 35;
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (ip_parse(slice_str(table[i].net), &net) == 0 && ip_in_net(addr, &net, table[i].prefix))
            return table[i].value;
    return 40;
}

/* A connected UDP socket sends nothing, but needs a route. */
static bool has_route(const struct ip_addr *addr)
{
    struct sockaddr_storage sa;
    socklen_t len = sockaddr_of(addr, 9, &sa);
    AUTO_FD int fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return fd >= 0 && connect(fd, (struct sockaddr *)&sa, len) == 0;
}

void connect_order(struct ip_addr *addrs, size_t count)
{
    int ranks[64];

    if (count > ARRAY_LEN(ranks))
        count = ARRAY_LEN(ranks);
    for (size_t i = 0; i < count; i++)
        ranks[i] = has_route(&addrs[i]) ? precedence(&addrs[i]) : -1;
    /* Insertion sort: stable, and the resolver's order counts among equals. */
    for (size_t i = 1; i < count; i++) {
        for (size_t k = i; k > 0 && ranks[k] > ranks[k - 1]; k--) {
            struct ip_addr addr = addrs[k];
            int rank = ranks[k];

            addrs[k] = addrs[k - 1];
            ranks[k] = ranks[k - 1];
            addrs[k - 1] = addr;
            ranks[k - 1] = rank;
        }
    }
    /* Another family follows the first address, so that a broken one costs one stagger. */
    for (size_t i = 1; i < count; i++) {
        if (addrs[i].family != addrs[0].family && ranks[i] >= 0) {
            struct ip_addr other = addrs[i];

            memmove(&addrs[2], &addrs[1], (i - 1) * sizeof(*addrs));
            addrs[1] = other;
            break;
        }
    }
}

/* ---- attempts ---- */

static void release(struct connect *c)
{
    for (size_t i = 0; i < c->started; i++) {
        if (c->attempts[i].event)
            event_free(c->attempts[i].event);
        fd_close(&c->attempts[i].fd);
    }
    event_free(c->timer);
    free(c);
}

void connect_cancel(struct connect *c)
{
    if (c)
        release(c);
}

static void finish(struct connect *c, int fd, int sys)
{
    void (*done)(void *, int, int) = c->done;
    void *arg = c->arg;

    release(c);
    done(arg, fd, sys);
}

static void schedule(struct connect *c, int64_t ms)
{
    int64_t left = c->deadline_ms - clock_mono_ms();
    struct timeval tv;

    tv = clock_timeval(ms > left || c->started == c->count ? left : ms);
    event_add(c->timer, &tv);
}

static void attempt_failed(struct connect *c, struct attempt *a, int sys)
{
    if (a->event)
        event_free(a->event);
    a->event = NULL;
    fd_close(&a->fd);
    c->failed++;
    if (!c->first_error)
        c->first_error = sys;
    /* No reason to wait for the stagger (also how the last failure reaches on_timer()). */
    schedule(c, 0);
    if (c->failed == c->count)
        event_active(c->timer, EV_TIMEOUT, 0);
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
    struct attempt *a = arg;
    int sys = 0, won;
    socklen_t len = sizeof(sys);

    (void)what;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &len) < 0)
        sys = errno;
    if (sys) {
        attempt_failed(a->connect, a, sys);
        return;
    }
    won = a->fd;
    a->fd = -1;
    finish(a->connect, won, 0);
}

static void start_attempt(struct connect *c)
{
    struct attempt *a = &c->attempts[c->started];
    struct sockaddr_storage sa;
    socklen_t len = sockaddr_of(&c->addrs[c->started], c->port, &sa);

    c->started++;
    a->connect = c;
    a->event = NULL;
    a->fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (a->fd < 0 || (connect(a->fd, (struct sockaddr *)&sa, len) < 0 && errno != EINPROGRESS)) {
        attempt_failed(c, a, errno);
        return;
    }
    a->event = event_new(c->base, a->fd, EV_WRITE, on_connected, a);
    if (!a->event)
        abort();
    event_add(a->event, NULL);
    schedule(c, CONNECT_STAGGER_MS);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct connect *c = arg;

    (void)fd;
    (void)what;
    if (c->failed == c->count)
        finish(c, -1, c->first_error);
    else if (clock_mono_ms() >= c->deadline_ms)
        finish(c, -1, ETIMEDOUT);
    else if (c->started < c->count)
        start_attempt(c);
    else
        schedule(c, CONNECT_MS);
}

struct connect *connect_start(struct event_base *base, const struct ip_addr *addrs, size_t count,
                              uint16_t port, void (*done)(void *arg, int fd, int sys), void *arg)
{
    struct connect *c = xcalloc(1, sizeof(*c));

    c->base = base;
    c->count = count < CONNECT_MAX ? count : CONNECT_MAX;
    memcpy(c->addrs, addrs, c->count * sizeof(*addrs));
    c->port = port;
    c->deadline_ms = clock_mono_ms() + CONNECT_MS;
    c->done = done;
    c->arg = arg;
    c->timer = evtimer_new(base, on_timer, c);
    if (!c->timer)
        abort();
    schedule(c, 0);
    return c;
}
