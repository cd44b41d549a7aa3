#include "host/dns_tcp.h"

#include "base/file.h"
#include "base/mem.h"
#include "vsock/stream.h"

#include <errno.h>
#include <event2/dns.h>
#include <stdio.h>
#include <sys/socket.h>

#define QUERY_ID 1 /* one question a connection: any will do */
#define HEAD_LEN 2 /* of a message on TCP: its length */

struct dns_tcp {
    struct event_base *base;
    struct evdns_base *servers;
    enum dns_type type;
    struct buf query; /* with its head */
    struct stream *stream;
    struct event *next; /* turns to the next server, or gives up */
    int index;          /* of that server */
    struct error err;   /* why the last one was of no use */
    void (*done)(void *arg, const struct ip_addr *addrs, size_t count, const char *reason);
    void *arg;
};

void dns_tcp_cancel(struct dns_tcp *t)
{
    if (!t)
        return;
    stream_free(t->stream);
    event_free(t->next);
    buf_free(&t->query);
    free(t);
}

static void finish(struct dns_tcp *t, const struct ip_addr *addrs, size_t count, const char *reason)
{
    void (*done)(void *, const struct ip_addr *, size_t, const char *) = t->done;
    void *arg = t->arg;

    dns_tcp_cancel(t);
    done(arg, addrs, count, reason);
}

/* t->err says why. */
static void try_next(struct dns_tcp *t)
{
    stream_free(t->stream);
    t->stream = NULL;
    event_active(t->next, EV_TIMEOUT, 0);
}

static void on_readable(void *arg)
{
    struct dns_tcp *t = arg;
    struct slice in = stream_peek(t->stream, HEAD_LEN);
    struct ip_addr addrs[DNS_TCP_ADDRS];
    size_t len = in.len == HEAD_LEN ? get_be16(in.ptr) : 0, count;
    char reason[sizeof(t->err.msg)];

    if (in.len < HEAD_LEN)
        return;
    in = stream_peek(t->stream, HEAD_LEN + len);
    if (in.len < HEAD_LEN + len)
        return;
    if (dns_reply_parse(slice_of(in.ptr + HEAD_LEN, len), QUERY_ID, t->type, addrs, DNS_TCP_ADDRS,
                        &count, &t->err) == 0) {
        finish(t, addrs, count, count ? NULL : "no address");
    } else if (t->err.kind == ERR_NOT_FOUND) {
        snprintf(reason, sizeof(reason), "%s", t->err.msg);
        finish(t, NULL, 0, reason);
    } else {
        try_next(t);
    }
}

static void on_ended(void *arg, int sys)
{
    struct dns_tcp *t = arg;

    if (sys)
        error_sys(&t->err, sys, "asking a name server over TCP");
    else
        error_set(&t->err, ERR_NET, "a name server hangs up over TCP");
    try_next(t);
}

static void do_nothing(void *arg)
{
    (void)arg;
}

static const struct stream_ops ops = {
    .readable = on_readable, .drained = do_nothing, .ended = on_ended, .timeout = do_nothing};

static void on_next(evutil_socket_t unused, short what, void *arg)
{
    struct dns_tcp *t = arg;
    struct sockaddr_storage sa;
    char reason[sizeof(t->err.msg)];
    int len, fd;

    (void)unused;
    (void)what;
    len =
        evdns_base_get_nameserver_addr(t->servers, t->index++, (struct sockaddr *)&sa, sizeof(sa));
    if (len <= 0) {
        snprintf(reason, sizeof(reason), "%s", t->err.msg);
        finish(t, NULL, 0, reason);
        return;
    }
    fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 ||
        (connect(fd, (struct sockaddr *)&sa, (socklen_t)len) < 0 && errno != EINPROGRESS)) {
        error_sys(&t->err, errno, "asking a name server over TCP");
        fd_close(&fd);
        try_next(t);
        return;
    }
    /* The question waits in the stream until the connection stands. */
    t->stream = stream_new(t->base, fd, &ops, t);
    stream_write(t->stream, t->query.ptr, t->query.len);
    stream_read(t->stream, true);
}

struct dns_tcp *dns_tcp_ask(struct event_base *base, struct evdns_base *servers, const char *name,
                            enum dns_type type,
                            void (*done)(void *arg, const struct ip_addr *addrs, size_t count,
                                         const char *reason),
                            void *arg)
{
    static const uint8_t head[HEAD_LEN];
    struct dns_tcp *t = xcalloc(1, sizeof(*t));

    t->base = base;
    t->servers = servers;
    t->type = type;
    t->done = done;
    t->arg = arg;
    t->query = BUF(HEAD_LEN + DNS_QUERY_MAX);
    error_set(&t->err, ERR_NET, "no name server is configured");
    t->next = evtimer_new(base, on_next, t);
    if (!t->next || buf_append(&t->query, head, sizeof(head)) < 0)
        abort(); /* out of memory */
    if (dns_query_write(QUERY_ID, name, type, &t->query, &t->err) < 0)
        t->index = INT32_MAX; /* no server has that index: the reason is told from the loop */
    put_be16(t->query.ptr, (uint16_t)(t->query.len - HEAD_LEN));
    event_active(t->next, EV_TIMEOUT, 0);
    return t;
}
