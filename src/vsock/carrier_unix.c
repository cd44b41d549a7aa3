#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "vsock/carrier_priv.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define BACKLOG       1024
#define GREETINGS_MAX 1024 /* connections that have not said CONNECT yet */
/*
 * Room for a few full splices of the relay; the kernel may grant less, and counts double. 4 MiB
 * save 7 % of the relays' CPU time, but a peer that stalls pins all of it (docs/performance.md).
 */
#define BUFFER_BYTES (1024 * 1024)

/*
 * ---- names ----
 *
 * The sandbox's enclave sees the directory read-only and is given v.sock, so only the host can make
 * or replace names. Where both sides can write (a pair run by hand), each must assume that the
 * other is hostile; so a name is always opened without following links of any kind, found to be a
 * socket, and only then connected to, through its descriptor: a link to some other socket of this
 * machine (a container engine's, say) leads nowhere. bind() and unlink() never follow a link in the
 * last part of a name.
 */

#define NAME_MAX_LEN 24 /* "v.sock_4294967295" */

static void socket_name(uint32_t port, char name[NAME_MAX_LEN])
{
    if (port == 0)
        snprintf(name, NAME_MAX_LEN, "v.sock");
    else
        snprintf(name, NAME_MAX_LEN, "v.sock_%u", port);
}

static struct sockaddr_un address_in(const struct carrier *c, const char *name)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};

    snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/%s", c->dir_fd, name);
    return sa;
}

/* Connects to a name in the directory. 0, or -1 with errno; ENOTSOCK for a link or a file. */
static int connect_name(const struct carrier *c, int fd, const char *name)
{
    struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                           .resolve =
                               RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH};
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    AUTO_FD int target = (int)syscall(SYS_openat2, c->dir_fd, name, &how, sizeof(how));
    struct stat st;

    if (target < 0 || fstat(target, &st) < 0)
        return -1;
    if (!S_ISSOCK(st.st_mode)) {
        errno = ENOTSOCK;
        return -1;
    }
    snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d", target);
    return connect(fd, (struct sockaddr *)&sa, sizeof(sa));
}

static int open_socket(struct error *err)
{
    const int bytes = BUFFER_BYTES;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return error_sys(err, errno, "opening a UNIX socket");
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    return fd;
}

/* A socket left by a process that is gone refuses; one in use accepts or is full. Keeps errno. */
static bool is_abandoned(const struct carrier *c, const char *name)
{
    int before = errno;
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool abandoned = fd >= 0 && connect_name(c, fd, name) < 0 && errno == ECONNREFUSED;

    errno = before;
    return abandoned;
}

/* Port 0 stands for v.sock itself. */
static int listen_on(const struct carrier *c, uint32_t port, struct error *err)
{
    char name[NAME_MAX_LEN];
    struct sockaddr_un sa;
    AUTO_FD int fd = open_socket(err);
    int rc, result;

    if (fd < 0)
        return -1;
    socket_name(port, name);
    sa = address_in(c, name);
    rc = bind(fd, (struct sockaddr *)&sa, sizeof(sa));
    if (rc < 0 && errno == EADDRINUSE && is_abandoned(c, name) && unlinkat(c->dir_fd, name, 0) == 0)
        rc = bind(fd, (struct sockaddr *)&sa, sizeof(sa));
    if (rc < 0 || listen(fd, BACKLOG) < 0)
        return error_sys(err, errno, "listening on the socket for port %u", port);
    result = fd;
    fd = -1;
    return result;
}

int carrier_make_door(const struct carrier *c, struct error *err)
{
    return listen_on(c, 0, err);
}

/* ---- connecting ---- */

static enum attempt_want failed(struct attempt *a, struct error *err, int sys)
{
    error_sys(err, sys, "connecting to port %u", a->port);
    return ATTEMPT_FAILED;
}

/*
 * Takes the next piece of a line from a socket and not a byte behind the line, for what follows
 * belongs to the stream. Returns the line's length with the newline, 0 when it is not complete yet,
 * or -1 with errno (EPROTO: too long, ECONNREFUSED: closed instead of answered).
 */
static ssize_t take_line(int fd, struct handshake_line *l)
{
    char *piece = l->text + l->len, *end;
    ssize_t n = recv(fd, piece, sizeof(l->text) - l->len, MSG_PEEK);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    end = n ? memchr(piece, '\n', (size_t)n) : NULL;
    /* A piece that stayed in the socket would wake us again and again. */
    n = recv(fd, piece, end ? (size_t)(end - piece) + 1 : (size_t)n, 0);
    l->len += n > 0 ? (size_t)n : 0;
    if (end)
        return (ssize_t)l->len;
    errno = n == 0 ? ECONNREFUSED : EPROTO;
    return n <= 0 || l->len == sizeof(l->text) ? -1 : 0;
}

static enum attempt_want start(const struct carrier *c, struct attempt *a, struct error *err)
{
    char name[NAME_MAX_LEN], greeting[sizeof(a->answer.text)];
    int n;

    a->fd = open_socket(err);
    if (a->fd < 0)
        return ATTEMPT_FAILED;
    socket_name(c->side == CARRIER_HOST ? 0 : a->port, name);
    if (connect_name(c, a->fd, name) < 0) {
        int sys = errno;

        fd_close(&a->fd);
        if (sys == EAGAIN) /* the peer's queue is full: there is no event for it on UNIX sockets */
            return ATTEMPT_LATER;
        return failed(a, err, sys);
    }
    if (c->side == CARRIER_ENCLAVE)
        return ATTEMPT_DONE;
    n = snprintf(greeting, sizeof(greeting), "CONNECT %u\n", a->port);
    /* A fresh socket takes these few bytes whole. */
    if (send(a->fd, greeting, (size_t)n, MSG_NOSIGNAL) != n)
        return failed(a, err, errno);
    a->stage = ATTEMPT_HANDSHAKE;
    return ATTEMPT_READ;
}

static enum attempt_want unix_advance(const struct carrier *c, struct attempt *a, struct error *err)
{
    ssize_t n;

    if (a->stage == ATTEMPT_START)
        return start(c, a, err);
    n = take_line(a->fd, &a->answer);
    if (n == 0)
        return ATTEMPT_READ;
    if (n < 0)
        return failed(a, err, errno == ECONNRESET ? ECONNREFUSED : errno);
    if (n < 4 || memcmp(a->answer.text, "OK ", 3) != 0)
        return failed(a, err, EPROTO);
    return ATTEMPT_DONE;
}

/* ---- v.sock: from the CONNECT line to the listener of the port ---- */

struct port {
    uint32_t number;
    struct listener *listener;
    struct port *next;
};

struct greeting {
    struct dispatcher *dispatcher;
    struct event *ready;
    int fd;
    struct handshake_line line;
    int64_t deadline_ms; /* for all of it */
    struct greeting *next, **link;
};

struct dispatcher {
    struct event_base *base;
    struct listener *door;
    struct port *ports;
    struct greeting *greetings;
};

static void greeting_free(struct greeting *g)
{
    *g->link = g->next;
    if (g->next)
        g->next->link = g->link;
    event_free(g->ready);
    fd_close(&g->fd);
    free(g);
}

static struct listener *find_port(const struct dispatcher *d, uint32_t number)
{
    for (const struct port *p = d->ports; p; p = p->next)
        if (p->number == number)
            return p->listener;
    return NULL;
}

/* Waits for the next piece. False when the time for all of them is up. */
static bool await_piece(struct greeting *g)
{
    int64_t ms = g->deadline_ms - clock_mono_ms();
    struct timeval tv = clock_timeval(ms);

    if (ms > 0)
        event_add(g->ready, &tv);
    return ms > 0;
}

static void on_greeting(evutil_socket_t sock, short what, void *arg)
{
    struct greeting *g = arg;
    struct dispatcher *d = g->dispatcher;
    const char *line = g->line.text;
    struct listener *l = NULL;
    uint64_t number;
    ssize_t n = 0;
    int fd = (int)sock;

    if (what & EV_READ) {
        n = take_line(fd, &g->line);
        if (n == 0 && await_piece(g))
            return;
    }
    if (n > 8 && memcmp(line, "CONNECT ", 8) == 0 &&
        parse_u64(slice_of(line + 8, (size_t)n - 9), UINT32_MAX, &number) == 0)
        l = find_port(d, (uint32_t)number);
    /* Time-out, nonsense, a port nobody serves, or a full one: closing is the refusal. */
    if (l && listener_has_room(l) && send(fd, "OK 1\n", 5, MSG_NOSIGNAL) == 5) {
        g->fd = -1;
        greeting_free(g);
        listener_done(d->door);
        listener_offer(l, fd);
        return;
    }
    greeting_free(g);
    listener_done(d->door);
}

static void on_knock(void *arg, int fd)
{
    struct dispatcher *d = arg;
    struct greeting *g = xcalloc(1, sizeof(*g));
    const int bytes = BUFFER_BYTES;

    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    g->dispatcher = d;
    g->fd = fd;
    g->next = d->greetings;
    g->link = &d->greetings;
    if (g->next)
        g->next->link = &g->next;
    d->greetings = g;
    g->deadline_ms = clock_mono_ms() + CARRIER_HANDSHAKE_MS;
    g->ready = event_new(d->base, fd, EV_READ, on_greeting, g);
    if (!g->ready)
        abort(); /* out of memory */
    (void)await_piece(g);
}

/* ---- the table's functions ---- */

static int unix_open(struct carrier *c, struct error *err)
{
    struct listener_spec spec = {.name = "v.sock", .max = GREETINGS_MAX, .accepted = on_knock};
    int fd = c->door_fd;

    if (c->side == CARRIER_HOST)
        return 0;
    if (fd < 0)
        fd = carrier_make_door(c, err);
    if (fd < 0)
        return -1;
    c->dispatcher = xcalloc(1, sizeof(*c->dispatcher));
    c->dispatcher->base = c->base;
    spec.arg = c->dispatcher;
    c->dispatcher->door = listener_new(c->base, fd, &spec);
    return 0;
}

static void unix_close(struct carrier *c)
{
    struct dispatcher *d = c->dispatcher;

    if (!d)
        return;
    while (d->greetings)
        greeting_free(d->greetings);
    listener_free(d->door);
    free(d);
}

static int unix_listen(struct carrier *c, uint32_t port, struct listener_spec *spec,
                       struct listener **out, struct error *err)
{
    struct port *p;
    int fd;

    spec->admit = NULL; /* the directory's mode says who may connect */
    if (c->side == CARRIER_HOST) {
        fd = listen_on(c, port, err);
        if (fd < 0)
            return -1;
        *out = listener_new(c->base, fd, spec);
        return 0;
    }
    if (find_port(c->dispatcher, port))
        return error_sys(err, EADDRINUSE, "listening on port %u", port);
    p = xcalloc(1, sizeof(*p));
    p->number = port;
    p->listener = *out = listener_new(c->base, -1, spec);
    p->next = c->dispatcher->ports;
    c->dispatcher->ports = p;
    return 0;
}

static void unix_unlisten(struct carrier *c, struct listener *l)
{
    if (c->dispatcher) {
        for (struct port **p = &c->dispatcher->ports; *p; p = &(*p)->next) {
            struct port *found = *p;

            if (found->listener != l)
                continue;
            *p = found->next;
            free(found);
            break;
        }
    }
    listener_free(l);
}

const struct carrier_ops carrier_unix_ops = {
    .open = unix_open,
    .close = unix_close,
    .advance = unix_advance,
    .listen = unix_listen,
    .unlisten = unix_unlisten,
};
