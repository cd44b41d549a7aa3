#include "host/nsm_server.h"

#include "base/file.h"
#include "base/log.h"
#include "base/pool.h"

#include <errno.h>
#include <event2/event.h>
#include <sys/queue.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 16
#define HEAD_LEN        4
#define REPLY_SECS      30 /* for a peer to take an answer */

/* Reads a request, has it answered, writes the answer, and so on until the peer closes. */
struct caller {
    struct pool_job job;
    LIST_ENTRY(caller) link;
    struct nsm_server *server;
    int fd;
    struct event *readable, *writable;
    uint8_t request[HEAD_LEN + NSM_REQUEST_MAX];
    size_t got;
    struct buf reply; /* with its head */
    size_t sent;
    bool busy;   /* the job is in the pool's hands */
    bool closed; /* the peer is gone meanwhile */
    bool last;   /* close once the reply is out */
};

struct nsm_server {
    struct event_base *base;
    struct carrier *carrier;
    struct listener *listener;
    struct soft_nsm *soft;
    struct pool *pool;
    struct event *pool_ready;
    LIST_HEAD(, caller) callers;
};

static void caller_free(struct caller *c)
{
    if (c->busy) {
        /* The thread still reads the request: on_answered() comes back here. */
        c->closed = true;
        event_del(c->readable);
        return;
    }
    LIST_REMOVE(c, link);
    event_free(c->readable);
    event_free(c->writable);
    fd_close(&c->fd);
    buf_free(&c->reply);
    listener_done(c->server->listener);
    free(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct caller *c = arg;
    ssize_t n;

    if (what & EV_TIMEOUT) {
        caller_free(c);
        return;
    }
    n = send((int)fd, c->reply.ptr + c->sent, c->reply.len - c->sent, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        caller_free(c);
        return;
    }
    c->sent += (size_t)n;
    if (c->sent < c->reply.len)
        return;
    event_del(c->writable);
    if (c->last) {
        caller_free(c);
        return;
    }
    c->got = c->sent = 0;
    buf_clear(&c->reply);
    event_add(c->readable, NULL);
}

static void send_reply(struct caller *c)
{
    const struct timeval limit = {.tv_sec = REPLY_SECS};

    put_be32(c->reply.ptr, (uint32_t)(c->reply.len - HEAD_LEN));
    event_add(c->writable, &limit);
}

/* In the pool's thread. */
static void answer(struct pool_job *job)
{
    struct caller *c = CONTAINER_OF(job, struct caller, job);

    soft_nsm_answer(c->server->soft, slice_of(c->request + HEAD_LEN, c->got - HEAD_LEN), &c->reply);
}

static void on_answered(struct pool_job *job)
{
    struct caller *c = CONTAINER_OF(job, struct caller, job);

    c->busy = false;
    if (c->closed || job->dropped)
        caller_free(c);
    else
        send_reply(c);
}

/* A whole request is there, or a length that no request has: the latter ends the connection. */
static void take_request(struct caller *c)
{
    static const uint8_t head[HEAD_LEN] = {0};

    event_del(c->readable);
    if (buf_append(&c->reply, head, sizeof(head)) < 0)
        abort(); /* the buffer has room for the largest answer */
    if (get_be32(c->request) == 0 || get_be32(c->request) > NSM_REQUEST_MAX) {
        c->last = true;
        soft_nsm_refuse_length(get_be32(c->request), &c->reply);
        send_reply(c);
        return;
    }
    c->busy = true;
    if (pool_submit(c->server->pool, &c->job) < 0) {
        c->busy = false;
        caller_free(c);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct caller *c = arg;
    size_t want = HEAD_LEN;
    ssize_t n;

    (void)what;
    if (c->got >= HEAD_LEN)
        want += get_be32(c->request);
    n = recv((int)fd, c->request + c->got, want - c->got, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        caller_free(c);
        return;
    }
    c->got += (size_t)n;
    if (c->got < HEAD_LEN)
        return;
    want = get_be32(c->request);
    if (want == 0 || want > NSM_REQUEST_MAX || c->got == HEAD_LEN + want)
        take_request(c);
}

static void on_accept(void *arg, int fd)
{
    struct nsm_server *s = arg;
    struct caller *c = xcalloc(1, sizeof(*c));

    c->server = s;
    c->fd = fd;
    c->job = (struct pool_job){.run = answer, .done = on_answered};
    c->reply = BUF(HEAD_LEN + NSM_ANSWER_MAX);
    LIST_INSERT_HEAD(&s->callers, c, link);
    c->readable = event_new(s->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(s->base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
    if (!c->readable || !c->writable)
        abort(); /* out of memory */
    event_add(c->readable, NULL);
}

static void on_pool_ready(evutil_socket_t fd, short what, void *arg)
{
    struct nsm_server *s = arg;

    (void)fd;
    (void)what;
    pool_collect(s->pool);
}

int nsm_server_start(struct event_base *base, struct carrier *carrier,
                     const struct soft_nsm_config *config, struct nsm_server **out,
                     struct error *err)
{
    struct nsm_server *s = xcalloc(1, sizeof(*s));
    struct listener_spec spec = {
        .name = "nsm", .max = CONNECTIONS_MAX, .accepted = on_accept, .arg = s};
    uint32_t port;

    s->base = base;
    s->carrier = carrier;
    LIST_INIT(&s->callers);
    s->soft = soft_nsm_new(config, err);
    if (!s->soft || pool_new(1, CONNECTIONS_MAX, &s->pool, err) < 0)
        goto fail;
    s->pool_ready = event_new(base, pool_fd(s->pool), EV_READ | EV_PERSIST, on_pool_ready, s);
    if (!s->pool_ready)
        abort(); /* out of memory */
    event_add(s->pool_ready, NULL);
    if (vsock_host_port(carrier_cid(carrier), VSOCK_OFFSET_NSM, &port, err) < 0 ||
        carrier_listen(carrier, port, &spec, &s->listener, err) < 0)
        goto fail;
    *out = s;
    return 0;
fail:
    nsm_server_stop(s);
    return error_wrap(err, "soft NSM");
}

void nsm_server_stop(struct nsm_server *s)
{
    struct caller *c, *next;

    if (!s)
        return;
    pool_free(s->pool); /* first: no caller is busy from here on */
    for (c = LIST_FIRST(&s->callers); c; c = next) {
        next = LIST_NEXT(c, link);
        caller_free(c);
    }
    if (s->listener)
        carrier_unlisten(s->carrier, s->listener);
    if (s->pool_ready)
        event_free(s->pool_ready);
    soft_nsm_free(s->soft);
    free(s);
}
