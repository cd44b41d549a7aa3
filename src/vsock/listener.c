#include "vsock/listener.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#define ACCEPT_BATCH 64 /* per wake-up, so that other events get their turn */
#define BACKLOG      1024

struct listener {
    struct listener_spec spec;
    int fd;
    int spare; /* given up for a moment to shed a connection when descriptors run out */
    struct event *readable;
    struct event *rest; /* after exhaustion */
    bool paused;        /* limit reached, resting, or closed */
    bool closed;
    struct log_rate complaint, strangers;
    struct listener_stats stats;
};

static void reserve_spare(struct listener *l)
{
    if (l->spare < 0)
        l->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void pause_accept(struct listener *l)
{
    if (!l->paused && l->readable)
        event_del(l->readable);
    l->paused = true;
}

static void resume_accept(struct listener *l)
{
    if (!l->paused || l->closed || l->stats.open >= l->spec.max ||
        (l->rest && evtimer_pending(l->rest, NULL)))
        return;
    l->paused = false;
    if (l->readable)
        event_add(l->readable, NULL);
}

static void on_rest_over(evutil_socket_t fd, short what, void *arg)
{
    struct listener *l = arg;

    (void)fd;
    (void)what;
    reserve_spare(l);
    resume_accept(l);
}

/* Closing one waiting peer tells it the truth at once; the rest waits until there is room. */
static void shed(struct listener *l, int why)
{
    const struct timeval pause = {.tv_usec = 100000};
    uint64_t suppressed;
    int fd;

    fd_close(&l->spare);
    fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        l->stats.shed++;
    }
    reserve_spare(l);
    if (log_rate_allow(&l->complaint, &suppressed))
        log_warn("listener", "cannot accept, resting", kv_str("listener", l->spec.name),
                 kv_str("reason", strerror(why)), kv_uint("suppressed", suppressed));
    event_add(l->rest, &pause);
    pause_accept(l);
}

static void count_stranger(struct listener *l)
{
    uint64_t suppressed;

    l->stats.refused++;
    if (log_rate_allow(&l->strangers, &suppressed))
        log_warn("listener", "sent away a peer that has no business here",
                 kv_str("listener", l->spec.name), kv_uint("refused", l->stats.refused));
}

static void take(struct listener *l, int fd)
{
    l->stats.accepted++;
    l->stats.open++;
    if (l->stats.open >= l->spec.max)
        pause_accept(l);
    l->spec.accepted(l->spec.arg, fd);
}

static void on_readable(evutil_socket_t lfd, short what, void *arg)
{
    struct listener *l = arg;

    (void)what;
    for (int i = 0; i < ACCEPT_BATCH && !l->paused; i++) {
        struct sockaddr_storage peer;
        socklen_t len = sizeof(peer);
        int fd = accept4(lfd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == ECONNABORTED || errno == EINTR)
                continue;
            /* EMFILE, ENFILE, ENOMEM, ENOBUFS, or something new: never spin on it. */
            if (errno != EAGAIN)
                shed(l, errno);
            return;
        }
        if (l->spec.admit && !l->spec.admit(l->spec.admit_arg, (struct sockaddr *)&peer, len)) {
            close(fd);
            count_stranger(l);
            continue;
        }
        take(l, fd);
    }
}

struct listener *listener_new(struct event_base *base, int fd, const struct listener_spec *spec)
{
    struct listener *l = xcalloc(1, sizeof(*l));

    l->spec = *spec;
    l->fd = fd;
    l->spare = -1;
    l->complaint.burst = l->strangers.burst = 2;
    if (fd < 0)
        return l;
    reserve_spare(l);
    l->rest = evtimer_new(base, on_rest_over, l);
    l->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, l);
    if (!l->rest || !l->readable)
        abort(); /* out of memory */
    event_add(l->readable, NULL);
    return l;
}

void listener_close(struct listener *l)
{
    pause_accept(l);
    l->closed = true;
    if (l->readable)
        event_free(l->readable);
    if (l->rest)
        event_free(l->rest);
    l->readable = l->rest = NULL;
    fd_close(&l->fd);
    fd_close(&l->spare);
}

void listener_free(struct listener *l)
{
    if (!l)
        return;
    listener_close(l);
    free(l);
}

void listener_done(struct listener *l)
{
    l->stats.open--;
    resume_accept(l);
}

bool listener_has_room(const struct listener *l)
{
    return !l->closed && l->stats.open < l->spec.max;
}

void listener_offer(struct listener *l, int fd)
{
    take(l, fd);
}

struct listener_stats listener_stats_of(const struct listener *l)
{
    return l->stats;
}

/* ---- TCP ---- */

static int bind_and_listen(int fd, const void *addr, socklen_t len)
{
    const int on = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 || bind(fd, addr, len) < 0 ||
        listen(fd, BACKLOG) < 0)
        return errno;
    return 0;
}

static int bind_v4(struct in_addr address, uint16_t port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = address};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int sys = fd < 0 ? errno : bind_and_listen(fd, &sa, sizeof(sa));

    if (sys) {
        fd_close(&fd);
        errno = sys;
    }
    return fd;
}

static int bind_v6(struct in6_addr address, uint16_t port, int only_v6)
{
    struct sockaddr_in6 sa = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = address};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int sys = 0;

    if (fd < 0)
        sys = errno;
    else if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, sizeof(only_v6)) < 0)
        sys = errno;
    else
        sys = bind_and_listen(fd, &sa, sizeof(sa));
    if (sys) {
        fd_close(&fd);
        errno = sys;
    }
    return fd;
}

int listener_bind_tcp(const char *address, uint16_t port, struct error *err)
{
    struct in_addr v4 = {.s_addr = htonl(INADDR_ANY)};
    struct in6_addr v6 = in6addr_any;
    int fd;

    if (!address) {
        fd = bind_v6(v6, port, 0);
        /* No IPv6 in this kernel, or it is switched off. */
        if (fd < 0 && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL))
            fd = bind_v4(v4, port);
        address = "*";
    } else if (inet_pton(AF_INET, address, &v4) == 1) {
        fd = bind_v4(v4, port);
    } else if (inet_pton(AF_INET6, address, &v6) == 1) {
        fd = bind_v6(v6, port, 1);
    } else {
        return error_set(err, ERR_USAGE, "%s is not an IPv4 or IPv6 address", address);
    }
    if (fd < 0)
        return error_sys(err, errno,
                         strchr(address, ':') ? "listening on [%s]:%u" : "listening on %s:%u",
                         address, port);
    return fd;
}

uint16_t socket_port(int fd)
{
    struct sockaddr_storage sa = {0};
    socklen_t len = sizeof(sa);

    if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
        return 0;
    if (sa.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)&sa)->sin_port);
    if (sa.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&sa)->sin6_port);
    return 0;
}

void socket_tune_tcp(int fd)
{
    const int on = 1, idle = 60, interval = 15, count = 4;

    /* Fails at once, and harmlessly, on a socket that is not TCP. */
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
        return;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}
