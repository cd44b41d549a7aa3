#include "enclave/log_server.h"

#include "base/file.h"
#include "base/log.h"
#include "enclave/logring.h"
#include "vsock/log2.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/queue.h>
#include <sys/socket.h>

#define READERS_MAX     32
#define REQUEST_WAIT_US 200000 /* none by then means the reader wants everything, raw */
#define STALLED_SECS    30
#define DRAIN_BYTES     (16 * 1024)

struct reader_conn {
    LIST_ENTRY(reader_conn) link;
    struct log_server *server;
    int fd;
    struct event *readable, *writable;
    char request[LOG2_LINE_MAX + 1];
    size_t request_len;
    struct buf front; /* a reply or a drop mark, sent before ring bytes */
    uint64_t offset;
    uint8_t last; /* last byte sent: a mark starts on a line of its own */
    bool streaming;
    bool log2;
    bool finished; /* has everything, sending side shut */
};

struct source {
    struct log_server *server;
    int fds[2];
    struct event *readable;
    bool discard;
};

struct log_server {
    struct event_base *base;
    struct carrier *carrier;
    struct listener *listener;
    struct logring ring;
    struct source app, own;
    LIST_HEAD(, reader_conn) readers;
    bool ended;
};

static void conn_free(struct reader_conn *c)
{
    LIST_REMOVE(c, link);
    event_free(c->readable);
    event_free(c->writable);
    fd_close(&c->fd);
    buf_free(&c->front);
    listener_done(c->server->listener);
    free(c);
}

/* ---- sending ---- */

static void wait_writable(struct reader_conn *c)
{
    const struct timeval stalled = {.tv_sec = STALLED_SECS};

    event_add(c->writable, &stalled);
}

/* Returns bytes taken, 0 when the socket is full, -1 when the reader is gone. */
static ssize_t offer(struct reader_conn *c, struct slice bytes)
{
    ssize_t n = send(c->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);

    if (n > 0) {
        c->last = bytes.ptr[n - 1];
        return n;
    }
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

/* The reader fell behind the ring. Returns -1 when it has to come back and ask again. */
static int skip_gap(struct reader_conn *c)
{
    uint64_t to = logring_seek(&c->server->ring, c->offset);

    if (c->log2)
        return -1; /* its next request learns how much is gone */
    if (buf_printf(&c->front, "%s[capsule: %" PRIu64 " bytes of log dropped]\n",
                   c->last == '\n' ? "" : "\n", to - c->offset) < 0)
        return -1;
    c->offset = to;
    return 0;
}

static int pump_conn(struct reader_conn *c)
{
    const struct logring *ring = &c->server->ring;

    for (;;) {
        struct slice bytes = buf_slice(&c->front);
        bool front = bytes.len > 0;
        ssize_t n;

        if (!front && c->offset < logring_start(ring)) {
            if (skip_gap(c) < 0)
                return -1;
            continue;
        }
        if (!front)
            bytes = logring_peek(ring, c->offset);
        if (bytes.len == 0)
            break;
        n = offer(c, bytes);
        if (n < 0)
            return -1;
        if (n == 0) {
            wait_writable(c);
            return 0;
        }
        if (front)
            buf_consume(&c->front, (size_t)n);
        else
            c->offset += (uint64_t)n;
    }
    if (c->server->ended && !c->finished) {
        c->finished = true;
        shutdown(c->fd, SHUT_WR);
    }
    return 0;
}

static void pump_readers(struct log_server *s)
{
    struct reader_conn *c, *next;

    for (c = LIST_FIRST(&s->readers); c; c = next) {
        next = LIST_NEXT(c, link);
        if (c->streaming && !event_pending(c->writable, EV_WRITE, NULL) && pump_conn(c) < 0)
            conn_free(c);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct reader_conn *c = arg;

    (void)fd;
    if ((what & EV_TIMEOUT) || pump_conn(c) < 0)
        conn_free(c);
}

/* ---- the request ---- */

static int begin_raw(struct reader_conn *c)
{
    c->streaming = true;
    c->offset = logring_seek(&c->server->ring, 0);
    /* The runtime's first bytes are gone when the ring has wrapped: say so. */
    if (c->offset > 0 &&
        buf_printf(&c->front, "[capsule: %" PRIu64 " bytes of log dropped]\n", c->offset) < 0)
        return -1;
    return pump_conn(c);
}

static int begin_log2(struct reader_conn *c, struct slice line)
{
    struct error err;
    uint64_t asked;

    if (log2_parse_request(line, &asked, &err) < 0 || asked > c->server->ring.end)
        return -1;
    c->streaming = c->log2 = true;
    c->offset = logring_seek(&c->server->ring, asked);
    log2_format_reply(c->offset, c->offset - asked, &c->front);
    return pump_conn(c);
}

/* Returns -1 when the connection is to be dropped. */
static int read_conn(struct reader_conn *c)
{
    char ignored[512];
    char *eol;
    ssize_t n;

    if (c->streaming) {
        n = recv(c->fd, ignored, sizeof(ignored), 0);
        return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)) ? 0 : -1;
    }
    n = recv(c->fd, c->request + c->request_len, sizeof(c->request) - c->request_len, 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (n == 0)
        return -1;
    c->request_len += (size_t)n;
    eol = memchr(c->request, '\n', c->request_len);
    if (!eol)
        return c->request_len == sizeof(c->request) ? -1 : 0;
    event_remove_timer(c->readable);
    return begin_log2(c, slice_of(c->request, (size_t)(eol - c->request)));
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct reader_conn *c = arg;
    int rc;

    (void)fd;
    if (what & EV_READ) {
        rc = read_conn(c);
    } else {
        event_remove_timer(c->readable);
        rc = c->streaming ? 0 : begin_raw(c);
    }
    if (rc < 0)
        conn_free(c);
}

static void on_accept(void *arg, int fd)
{
    const struct timeval wait = {.tv_usec = REQUEST_WAIT_US};
    struct log_server *s = arg;
    struct reader_conn *c = xcalloc(1, sizeof(*c));

    c->server = s;
    c->fd = fd;
    c->last = '\n';
    c->front = BUF(512);
    c->readable = event_new(s->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(s->base, fd, EV_WRITE, on_writable, c);
    if (!c->readable || !c->writable)
        abort(); /* out of memory */
    LIST_INSERT_HEAD(&s->readers, c, link);
    event_add(c->readable, &wait);
}

/* ---- the pipes ---- */

/* Returns false when the pipe is empty. */
static bool drain_some(struct source *src)
{
    uint8_t chunk[DRAIN_BYTES];
    ssize_t n = read(src->fds[0], chunk, sizeof(chunk));

    if (n <= 0)
        return n < 0 && errno == EINTR;
    if (!src->discard)
        logring_write(&src->server->ring, chunk, (size_t)n);
    return true;
}

static void on_output(evutil_socket_t fd, short what, void *arg)
{
    struct source *src = arg;

    (void)fd;
    (void)what;
    /* One pipe's worth at most, then the readers: they should not lose bytes to a loud app. */
    for (int i = 0; i < 4 && drain_some(src); i++)
        ;
    pump_readers(src->server);
}

static int source_open(struct log_server *s, struct source *src, bool own, struct error *err)
{
    src->server = s;
    src->fds[0] = src->fds[1] = -1;
    if (pipe2(src->fds, O_CLOEXEC) < 0 || fd_set_nonblock(src->fds[0], err) < 0 ||
        (own && fd_set_nonblock(src->fds[1], err) < 0))
        return error_sys(err, errno, "opening the log pipe");
    src->readable = event_new(s->base, src->fds[0], EV_READ | EV_PERSIST, on_output, src);
    if (!src->readable)
        abort(); /* out of memory */
    event_add(src->readable, NULL);
    return 0;
}

static void source_close(struct source *src)
{
    if (src->readable)
        event_free(src->readable);
    src->readable = NULL;
    fd_close(&src->fds[0]);
    fd_close(&src->fds[1]);
}

/* ---- life ---- */

int log_server_start(struct event_base *base, struct carrier *carrier, struct log_server **out,
                     struct error *err)
{
    struct log_server *s = xcalloc(1, sizeof(*s));
    struct listener_spec spec = {
        .name = "log", .max = READERS_MAX, .accepted = on_accept, .arg = s};

    s->base = base;
    s->carrier = carrier;
    s->app.fds[0] = s->app.fds[1] = s->own.fds[0] = s->own.fds[1] = -1;
    LIST_INIT(&s->readers);
    if (source_open(s, &s->app, false, err) < 0 || source_open(s, &s->own, true, err) < 0 ||
        carrier_listen(carrier, VSOCK_PORT_LOG, &spec, &s->listener, err) < 0) {
        log_server_stop(s);
        return error_wrap(err, "log server");
    }
    *out = s;
    return 0;
}

int log_server_app_fd(const struct log_server *s)
{
    return s->app.fds[1];
}

int log_server_own_fd(const struct log_server *s)
{
    return s->own.fds[1];
}

void log_server_discard_app(struct log_server *s)
{
    s->app.discard = true;
}

void log_server_drain(struct log_server *s)
{
    /* Bounded: a descendant that outlives the app may write without end. */
    for (int i = 0; i < 128 && drain_some(&s->app); i++)
        pump_readers(s);
    for (int i = 0; i < 16 && drain_some(&s->own); i++)
        ;
    pump_readers(s);
}

void log_server_end(struct log_server *s)
{
    s->ended = true;
    pump_readers(s);
}

bool log_server_done(const struct log_server *s)
{
    return s->ended && LIST_EMPTY(&s->readers);
}

uint64_t log_server_offset(const struct log_server *s)
{
    return s->ring.end;
}

void log_server_stop(struct log_server *s)
{
    if (!s)
        return;
    while (!LIST_EMPTY(&s->readers))
        conn_free(LIST_FIRST(&s->readers));
    carrier_unlisten(s->carrier, s->listener);
    source_close(&s->app);
    source_close(&s->own);
    logring_free(&s->ring);
    free(s);
}
