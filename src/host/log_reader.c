#include "host/log_reader.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "host/log_output.h"
#include "vsock/log2.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>

#define CHUNK        (32 * 1024)
#define EAGER_MS     2000
#define EAGER_PAUSE  10
#define PAUSE_MIN_MS 250
#define PAUSE_MAX_MS 5000

struct log_reader {
    struct log_reader_spec spec;
    struct log_output *out;
    struct dial *dial;
    int fd;
    struct event *readable;
    struct event *timer; /* next dial */
    struct event *limit; /* while finishing */
    char reply[LOG2_LINE_MAX + 1];
    size_t reply_len;
    bool streaming; /* the reply has been read */
    uint64_t offset;
    int64_t started_ms;
    int64_t pause_ms;
    int64_t last_byte_ms, finish_ms;
    bool finishing, at_end, done;
};

static void dial_now(struct log_reader *r);

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    dial_now(arg);
}

static void disconnect(struct log_reader *r)
{
    if (r->readable)
        event_free(r->readable);
    r->readable = NULL;
    fd_close(&r->fd);
}

static void done(struct log_reader *r)
{
    if (r->done)
        return;
    r->done = true;
    disconnect(r);
    dial_cancel(r->dial);
    r->dial = NULL;
    event_del(r->timer);
    event_del(r->limit);
    log_output_flush_line(r->out);
    r->spec.finished(r->spec.arg);
}

/* The stream ended, or could not be opened: for good, or until the next try. */
static void lost(struct log_reader *r)
{
    struct timeval tv;
    int64_t ms = EAGER_PAUSE;

    disconnect(r);
    if (r->finishing) {
        r->at_end = true;
        if (!log_output_busy(r->out))
            done(r);
        return;
    }
    if (clock_mono_ms() - r->started_ms >= EAGER_MS) {
        ms = r->pause_ms;
        r->pause_ms = ms * 2 < PAUSE_MAX_MS ? ms * 2 : PAUSE_MAX_MS;
    }
    tv = clock_timeval(ms);
    event_add(r->timer, &tv);
}

static void on_drained(void *arg)
{
    struct log_reader *r = arg;

    if (r->finishing && r->at_end)
        done(r);
    else if (r->readable)
        event_add(r->readable, NULL);
}

/* Passes bytes on; an output that is full stops the reading until it has drained. */
static void deliver(struct log_reader *r, struct slice bytes)
{
    r->offset += bytes.len;
    r->last_byte_ms = clock_mono_ms();
    log_output_write(r->out, bytes);
    if (log_output_busy(r->out))
        event_del(r->readable);
}

static int take_reply(struct log_reader *r, struct slice line)
{
    uint64_t offset, dropped;
    struct error err;
    char mark[80];

    if (log2_parse_reply(line, r->offset, &offset, &dropped, &err) < 0) {
        log_warn("log", "bad answer from the enclave's log server", kv_str("reason", err.msg));
        return -1;
    }
    if (dropped) {
        snprintf(mark, sizeof(mark), "[capsule: %" PRIu64 " bytes of log dropped]", dropped);
        log_output_mark(r->out, mark);
    }
    r->offset = offset;
    r->streaming = true;
    r->pause_ms = PAUSE_MIN_MS;
    return 0;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct log_reader *r = arg;
    uint8_t chunk[CHUNK];
    char *eol;
    ssize_t n;

    (void)what;
    if (r->streaming)
        n = recv((int)fd, chunk, sizeof(chunk), 0);
    else
        n = recv((int)fd, r->reply + r->reply_len, sizeof(r->reply) - r->reply_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        lost(r);
        return;
    }
    if (r->streaming) {
        deliver(r, slice_of(chunk, (size_t)n));
        return;
    }
    r->reply_len += (size_t)n;
    eol = memchr(r->reply, '\n', r->reply_len);
    if ((!eol && r->reply_len == sizeof(r->reply)) ||
        (eol && take_reply(r, slice_of(r->reply, (size_t)(eol - r->reply))) < 0)) {
        lost(r);
        return;
    }
    if (eol && eol + 1 < r->reply + r->reply_len)
        deliver(r, slice_of(eol + 1, r->reply_len - (size_t)(eol + 1 - r->reply)));
}

static void on_connected(void *arg, int fd, const struct error *err)
{
    AUTO_BUF struct buf line = BUF(LOG2_LINE_MAX);
    struct log_reader *r = arg;

    r->dial = NULL;
    if (fd < 0) {
        log_trace("log", "no log stream yet", kv_str("reason", err->msg));
        lost(r);
        return;
    }
    r->fd = fd;
    r->streaming = false;
    r->reply_len = 0;
    log2_format_request(r->offset, &line);
    r->readable = event_new(r->spec.base, fd, EV_READ | EV_PERSIST, on_readable, r);
    if (!r->readable)
        abort(); /* out of memory */
    if (!log_output_busy(r->out))
        event_add(r->readable, NULL);
    if (send(fd, line.ptr, line.len, MSG_NOSIGNAL) != (ssize_t)line.len)
        lost(r);
}

static void dial_now(struct log_reader *r)
{
    r->dial = carrier_dial(r->spec.carrier, VSOCK_PORT_LOG, on_connected, r);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
    struct log_reader *r = arg;
    int64_t now = clock_mono_ms();

    (void)fd;
    (void)what;
    if (now - r->finish_ms >= LOG_FINISH_MS) {
        log_warn("log", "gave up waiting for the end of the log");
        done(r);
    } else if (now - r->last_byte_ms >= LOG_IDLE_MS && !log_output_busy(r->out)) {
        done(r);
    }
}

struct log_reader *log_reader_start(const struct log_reader_spec *spec)
{
    struct log_reader *r = xcalloc(1, sizeof(*r));

    r->spec = *spec;
    r->fd = -1;
    r->pause_ms = PAUSE_MIN_MS;
    r->started_ms = clock_mono_ms();
    r->out = log_output_new(spec->base, spec->out_fd, spec->json, on_drained, r);
    r->timer = evtimer_new(spec->base, on_timer, r);
    r->limit = event_new(spec->base, -1, EV_PERSIST, on_limit, r);
    if (!r->timer || !r->limit)
        abort(); /* out of memory */
    dial_now(r);
    return r;
}

void log_reader_finish(struct log_reader *r)
{
    const struct timeval tick = {.tv_usec = 100000};

    if (r->finishing)
        return;
    r->finishing = true;
    r->finish_ms = r->last_byte_ms = clock_mono_ms();
    event_add(r->limit, &tick);
    /* A stream that ended a moment ago may be asked once more for its last bytes. */
    if (r->fd < 0 && !r->dial) {
        event_del(r->timer);
        dial_now(r);
    }
}

void log_reader_stop(struct log_reader *r)
{
    if (!r)
        return;
    disconnect(r);
    dial_cancel(r->dial);
    event_free(r->timer);
    event_free(r->limit);
    log_output_free(r->out);
    free(r);
}
