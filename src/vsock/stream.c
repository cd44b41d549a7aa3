#include "vsock/stream.h"

#include "base/file.h"
#include "vsock/relay.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define READ_MIN 4096
#define READ_MAX 65536

struct stream {
    int fd;
    const struct stream_ops *ops;
    void *arg;
    struct evbuffer *in, *out;
    struct event *read_event, *write_event, *timer;
    size_t read_size; /* grows while reads fill it, so that idle peers cost little */
    int broken;       /* errno found while writing, to be told from the loop */
    bool want_read, reading, at_end;
};

static void update_reading(struct stream *s)
{
    bool on = s->want_read && !s->at_end && !s->broken && evbuffer_get_length(s->in) < STREAM_HIGH;

    if (on == s->reading)
        return;
    s->reading = on;
    if (on)
        event_add(s->read_event, NULL);
    else
        event_del(s->read_event);
}

static ssize_t fill(struct stream *s)
{
    struct evbuffer_iovec vec[2];
    int count = evbuffer_reserve_space(s->in, (ev_ssize_t)s->read_size, vec, 2);
    size_t left;
    ssize_t got;

    if (count < 1) {
        errno = ENOMEM;
        return -1;
    }
    do
        got = readv(s->fd, (const struct iovec *)vec, count);
    while (got < 0 && errno == EINTR);
    left = got > 0 ? (size_t)got : 0;
    for (int i = 0; i < count; i++) {
        if (vec[i].iov_len > left)
            vec[i].iov_len = left;
        left -= vec[i].iov_len;
    }
    if (got > 0)
        evbuffer_commit_space(s->in, vec, count);
    return got;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;
    ssize_t got = fill(s);

    (void)fd;
    (void)what;
    if (got > 0) {
        if ((size_t)got >= s->read_size && s->read_size < READ_MAX)
            s->read_size *= 4;
        update_reading(s);
        s->ops->readable(s->arg);
        return;
    }
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (got == 0)
        s->at_end = true;
    else
        s->broken = errno;
    update_reading(s);
    s->ops->ended(s->arg, s->broken);
}

/* False when the connection broke; s->broken is set then. */
static bool write_some(struct stream *s)
{
    while (evbuffer_get_length(s->out) > 0) {
        if (evbuffer_write(s->out, s->fd) > 0)
            continue;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK)
            s->broken = errno ? errno : EPIPE;
        break;
    }
    return s->broken == 0;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;

    (void)fd;
    (void)what;
    if (s->broken || !write_some(s)) {
        update_reading(s);
        s->ops->ended(s->arg, s->broken);
        return;
    }
    if (evbuffer_get_length(s->out) > 0)
        event_add(s->write_event, NULL);
    if (evbuffer_get_length(s->out) <= STREAM_LOW)
        s->ops->drained(s->arg);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;

    (void)fd;
    (void)what;
    s->ops->timeout(s->arg);
}

struct stream *stream_new(struct event_base *base, int fd, const struct stream_ops *ops, void *arg)
{
    struct stream *s = xcalloc(1, sizeof(*s));

    s->fd = fd;
    s->ops = ops;
    s->arg = arg;
    s->read_size = READ_MIN;
    s->in = evbuffer_new();
    s->out = evbuffer_new();
    s->read_event = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, s);
    s->write_event = event_new(base, fd, EV_WRITE, on_writable, s);
    s->timer = evtimer_new(base, on_timeout, s);
    if (!s->in || !s->out || !s->read_event || !s->write_event || !s->timer)
        abort();
    return s;
}

int stream_take_fd(struct stream *s)
{
    int fd = s->fd;

    event_del(s->read_event);
    event_del(s->write_event);
    event_del(s->timer);
    s->fd = -1;
    return fd;
}

void stream_free(struct stream *s)
{
    if (!s)
        return;
    event_free(s->read_event);
    event_free(s->write_event);
    event_free(s->timer);
    evbuffer_free(s->in);
    evbuffer_free(s->out);
    fd_close(&s->fd);
    free(s);
}

void stream_abort(struct stream *s)
{
    int fd;

    if (!s)
        return;
    fd = stream_take_fd(s);
    stream_free(s);
    socket_abort(&fd);
}

void stream_set_ops(struct stream *s, const struct stream_ops *ops, void *arg)
{
    s->ops = ops;
    s->arg = arg;
}

struct evbuffer *stream_in(struct stream *s)
{
    return s->in;
}

struct evbuffer *stream_out(struct stream *s)
{
    return s->out;
}

struct slice stream_peek(struct stream *s, size_t len)
{
    size_t have = evbuffer_get_length(s->in);

    if (len > have)
        len = have;
    return len ? slice_of(evbuffer_pullup(s->in, (ev_ssize_t)len), len) : slice_of(NULL, 0);
}

void stream_read(struct stream *s, bool on)
{
    s->want_read = on;
    update_reading(s);
}

void stream_flush(struct stream *s)
{
    if (s->broken || evbuffer_get_length(s->out) == 0)
        return;
    if (!write_some(s)) {
        /* Not from here: the caller is in the middle of something. */
        event_active(s->write_event, EV_WRITE, 0);
        return;
    }
    if (evbuffer_get_length(s->out) > 0)
        event_add(s->write_event, NULL);
}

void stream_write(struct stream *s, const void *ptr, size_t len)
{
    evbuffer_add(s->out, ptr, len);
    stream_flush(s);
}

void stream_shutdown(struct stream *s)
{
    shutdown(s->fd, SHUT_WR);
}

void stream_set_timeout(struct stream *s, int64_t ms)
{
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};

    if (ms > 0)
        event_add(s->timer, &tv);
    else
        event_del(s->timer);
}

bool stream_at_end(const struct stream *s)
{
    return s->at_end;
}
