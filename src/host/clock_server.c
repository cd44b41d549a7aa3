#include "host/clock_server.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "vsock/clockproto.h"

#include <errno.h>
#include <event2/event.h>
#include <sys/queue.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 64
#define REQUEST_SECS    5

struct asker {
    LIST_ENTRY(asker) link;
    struct clock_server *server;
    int fd;
    struct event *readable;
    int64_t deadline_ms; /* of the request, however slowly it comes */
    char request[CLOCK_REQUEST_LEN];
    size_t len;
};

struct clock_server {
    struct event_base *base;
    struct carrier *carrier;
    struct listener *listener;
    LIST_HEAD(, asker) askers;
};

static void asker_free(struct asker *a)
{
    LIST_REMOVE(a, link);
    event_free(a->readable);
    fd_close(&a->fd);
    listener_done(a->server->listener);
    free(a);
}

static void answer(const struct asker *a, int64_t received_ns)
{
    AUTO_BUF struct buf line = BUF(CLOCK_REPLY_MAX + 1);

    /* One line into an empty socket buffer; a peer that is gone already needs no answer. */
    clock_format_reply(received_ns, clock_real_ns(), &line);
    (void)!send(a->fd, line.ptr, line.len, MSG_NOSIGNAL);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    int64_t received_ns = clock_real_ns();
    struct asker *a = arg;
    ssize_t n = 0;

    if (what & EV_READ)
        n = recv((int)fd, a->request + a->len, sizeof(a->request) - a->len, 0);
    if (n > 0)
        a->len += (size_t)n;
    /* Anything else is closed without a reply, at its first wrong byte. */
    if ((n > 0 && memcmp(a->request, CLOCK_REQUEST, a->len) == 0) ||
        (n < 0 && (errno == EAGAIN || errno == EINTR))) {
        if (a->len < sizeof(a->request)) {
            struct timeval left = clock_left(a->deadline_ms);

            event_add(a->readable, &left);
            return;
        }
        answer(a, received_ns);
    }
    asker_free(a);
}

static void on_accept(void *arg, int fd)
{
    const struct timeval limit = {.tv_sec = REQUEST_SECS};
    struct clock_server *s = arg;
    struct asker *a = xcalloc(1, sizeof(*a));

    a->server = s;
    a->fd = fd;
    a->deadline_ms = clock_mono_ms() + REQUEST_SECS * 1000;
    LIST_INSERT_HEAD(&s->askers, a, link);
    a->readable = event_new(s->base, fd, EV_READ | EV_PERSIST, on_readable, a);
    if (!a->readable)
        abort(); /* out of memory */
    event_add(a->readable, &limit);
}

int clock_server_start(struct event_base *base, struct carrier *carrier, struct clock_server **out,
                       struct error *err)
{
    struct clock_server *s = xcalloc(1, sizeof(*s));
    struct listener_spec spec = {
        .name = "clock", .max = CONNECTIONS_MAX, .accepted = on_accept, .arg = s};
    uint32_t port;

    s->base = base;
    s->carrier = carrier;
    LIST_INIT(&s->askers);
    if (vsock_host_port(carrier_cid(carrier), VSOCK_OFFSET_CLOCK, &port, err) < 0 ||
        carrier_listen(carrier, port, &spec, &s->listener, err) < 0) {
        free(s);
        return error_wrap(err, "clock server");
    }
    *out = s;
    return 0;
}

void clock_server_stop(struct clock_server *s)
{
    if (!s)
        return;
    while (!LIST_EMPTY(&s->askers))
        asker_free(LIST_FIRST(&s->askers));
    carrier_unlisten(s->carrier, s->listener);
    free(s);
}
