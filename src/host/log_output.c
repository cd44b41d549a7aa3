#include "host/log_output.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "host/log_reader.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One read of the log stream in JSON at its worst: a frame of some 60 bytes for every newline. */
#define PENDING_MAX (4 * 1024 * 1024)

struct log_output {
    int fd;
    bool json;
    bool gone;         /* nobody reads any more */
    bool always_ready; /* a file: epoll does not take it, and it never blocks for long */
    struct event *writable;
    struct buf pending;
    struct buf line; /* JSON: the line so far */
    uint8_t last;
    void (*drained)(void *arg);
    void *arg;
};

static void write_some(struct log_output *o)
{
    while (o->pending.len && !o->gone) {
        struct pollfd p = {.fd = o->fd, .events = POLLOUT};
        /* A pipe that polls writable takes PIPE_BUF bytes without blocking (pipe(7)). */
        size_t len = o->pending.len < PIPE_BUF ? o->pending.len : PIPE_BUF;
        ssize_t n;

        if (!o->always_ready && poll(&p, 1, 0) == 0) {
            event_add(o->writable, NULL);
            return;
        }
        n = write(o->fd, o->pending.ptr, len);
        if (n > 0) {
            buf_consume(&o->pending, (size_t)n);
        } else if (n < 0 && errno != EINTR && errno != EAGAIN) {
            o->gone = true;
            log_warn("log", "standard output is gone, the app's output is dropped from now on",
                     kv_str("reason", strerror(errno)));
        } else if (n < 0 && errno == EAGAIN) {
            event_add(o->writable, NULL);
            return;
        }
    }
    if (o->gone)
        buf_clear(&o->pending);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct log_output *o = arg;

    (void)fd;
    (void)what;
    write_some(o);
    if (!log_output_busy(o))
        o->drained(o->arg);
}

struct log_output *log_output_new(struct event_base *base, int fd, bool json,
                                  void (*drained)(void *arg), void *arg)
{
    struct log_output *o = xcalloc(1, sizeof(*o));
    struct stat st;

    o->fd = fd;
    o->json = json;
    o->last = '\n';
    o->pending = BUF(PENDING_MAX);
    o->line = BUF(LOG_SPLIT);
    o->drained = drained;
    o->arg = arg;
    o->always_ready =
        fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISCHR(st.st_mode)) && !isatty(fd);
    o->writable = event_new(base, fd, EV_WRITE, on_writable, o);
    if (!o->writable)
        abort(); /* out of memory */
    return o;
}

static void append(struct log_output *o, const void *ptr, size_t len)
{
    if (!o->gone && buf_append(&o->pending, ptr, len) < 0)
        abort(); /* callers wait while busy, so one read always fits */
}

static void emit_json(struct log_output *o, const char *component, struct slice text, bool partial)
{
    int64_t now = clock_real_ns();
    json_t *object = json_object();
    char *dump;

    json_object_set_new(object, "ts", json_real((double)now / 1e9));
    json_object_set_new(object, "component", json_string(component));
    if (utf8_valid(text)) {
        json_object_set_new(object, "message", json_stringn((const char *)text.ptr, text.len));
    } else {
        AUTO_BUF struct buf b64 = BUF(2 * LOG_SPLIT);

        if (base64_encode(text, &b64) < 0)
            abort(); /* a line is at most LOG_SPLIT bytes */
        json_object_set_new(object, "base64", json_stringn((const char *)b64.ptr, b64.len));
    }
    if (partial)
        json_object_set_new(object, "partial", json_true());
    dump = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(14));
    json_decref(object);
    if (!dump)
        abort(); /* out of memory */
    append(o, dump, strlen(dump));
    append(o, "\n", 1);
    free(dump);
}

/* Where to cut a long line so that no UTF-8 character is torn apart. */
static size_t cut_length(struct slice line)
{
    size_t len = line.len;

    for (int i = 0; i < 3 && len > 1; i++) {
        uint8_t c = line.ptr[len - 1];

        if (c < 0x80)
            return len;
        len--;
        if (c >= 0xc0)
            return len;
    }
    return line.len;
}

static void add_json(struct log_output *o, struct slice bytes)
{
    while (bytes.len) {
        const uint8_t *newline = memchr(bytes.ptr, '\n', bytes.len);
        size_t want = newline ? (size_t)(newline - bytes.ptr) : bytes.len;
        size_t room = LOG_SPLIT - o->line.len, take = want < room ? want : room;

        if (buf_append(&o->line, bytes.ptr, take) < 0)
            abort(); /* there was room */
        bytes = slice_of(bytes.ptr + take, bytes.len - take);
        if (take < want) {
            size_t cut = cut_length(buf_slice(&o->line));

            emit_json(o, "app", slice_of(o->line.ptr, cut), true);
            buf_consume(&o->line, cut);
        } else if (newline) {
            emit_json(o, "app", buf_slice(&o->line), false);
            buf_clear(&o->line);
            bytes = slice_of(bytes.ptr + 1, bytes.len - 1);
        }
    }
}

void log_output_write(struct log_output *o, struct slice bytes)
{
    if (bytes.len == 0)
        return;
    o->last = bytes.ptr[bytes.len - 1];
    if (o->json)
        add_json(o, bytes);
    else
        append(o, bytes.ptr, bytes.len);
    write_some(o);
}

void log_output_mark(struct log_output *o, const char *text)
{
    if (o->json) {
        log_output_flush_line(o);
        emit_json(o, "capsule", slice_str(text), false);
    } else {
        if (o->last != '\n')
            append(o, "\n", 1);
        append(o, text, strlen(text));
        append(o, "\n", 1);
        o->last = '\n';
    }
    write_some(o);
}

void log_output_flush_line(struct log_output *o)
{
    if (o->line.len == 0)
        return;
    emit_json(o, "app", buf_slice(&o->line), false);
    buf_clear(&o->line);
    write_some(o);
}

bool log_output_busy(const struct log_output *o)
{
    return o->pending.len > 0;
}

void log_output_free(struct log_output *o)
{
    if (!o)
        return;
    event_free(o->writable);
    buf_free(&o->pending);
    buf_free(&o->line);
    free(o);
}
