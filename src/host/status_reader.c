#include "host/status_reader.h"

#include "base/clock.h"
#include "base/log.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#define EAGER_MS         2000 /* at the start every few milliseconds, later less often */
#define EAGER_PAUSE_MS   10
#define PAUSE_MS         250
#define BAD_PAUSE_MAX_MS 2000

struct status_reader {
    struct status_reader_spec spec;
    struct dial *dial;
    struct bufferevent *bev;
    struct event *timer;  /* next dial */
    int64_t started_ms;   /* of the reader */
    int64_t lost_ms;      /* when the last connection ended; 0 before the first */
    int64_t bad_since_ms; /* the first connection of a row without a readable line; 0: none */
    int64_t bad_pause_ms; /* back-off after an unreadable line, 0 after a readable one */
    bool spoke;           /* a readable line came on this connection */
    bool finished;
    bool can_stop;
    bool want_stop;
    uint32_t grace_ms;
};

static void dial_now(struct status_reader *r);

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    dial_now(arg);
}

static void dial_later(struct status_reader *r, int64_t ms)
{
    struct timeval tv = clock_timeval(ms);

    event_add(r->timer, &tv);
}

static void disconnect(struct status_reader *r)
{
    if (r->bev)
        bufferevent_free(r->bev);
    r->bev = NULL;
}

static void give_up(struct status_reader *r, const struct error *why)
{
    disconnect(r);
    r->finished = true;
    r->spec.failed(r->spec.arg, why);
}

/* ---- lines ---- */

static void send_stop(struct status_reader *r)
{
    AUTO_BUF struct buf line = BUF(STOP_LINE_MAX);

    if (!r->want_stop || !r->can_stop || !r->bev)
        return;
    stop_format(r->grace_ms, &line);
    bufferevent_write(r->bev, line.ptr, line.len);
    r->want_stop = false;
}

/* Returns false when the reader has finished or has disconnected. */
static bool take_line(struct status_reader *r, struct slice line)
{
    struct status status;
    struct error err;

    if (status_parse(line, &status, &err) < 0) {
        log_warn("status", "unreadable line from the enclave", kv_str("reason", err.msg));
        return false;
    }
    r->spoke = true;
    r->bad_since_ms = r->bad_pause_ms = 0;
    if (status_is_final(&status)) {
        r->finished = true;
        r->spec.changed(r->spec.arg, &status);
        return false;
    }
    r->can_stop = status.can_stop;
    send_stop(r);
    r->spec.changed(r->spec.arg, &status);
    return true;
}

static void unreadable(struct status_reader *r)
{
    int64_t now = clock_mono_ms();
    struct error err;

    disconnect(r);
    if (r->bad_since_ms == 0)
        r->bad_since_ms = now;
    if (now - r->bad_since_ms >= STATUS_UNREADABLE_MS) {
        error_set(&err, ERR_NET, "the enclave's status could not be read for %d s",
                  STATUS_UNREADABLE_MS / 1000);
        give_up(r, &err);
        return;
    }
    r->bad_pause_ms = r->bad_pause_ms ? r->bad_pause_ms * 2 : PAUSE_MS;
    if (r->bad_pause_ms > BAD_PAUSE_MAX_MS)
        r->bad_pause_ms = BAD_PAUSE_MAX_MS;
    dial_later(r, r->bad_pause_ms);
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct status_reader *r = arg;
    struct evbuffer *in = bufferevent_get_input(bev);

    for (;;) {
        struct evbuffer_ptr eol = evbuffer_search_eol(in, NULL, NULL, EVBUFFER_EOL_LF);
        char line[STATUS_LINE_MAX + 1];
        bool ok = true;

        if (eol.pos < 0 && evbuffer_get_length(in) <= STATUS_LINE_MAX)
            return;
        if (eol.pos < 0 || eol.pos > STATUS_LINE_MAX) {
            log_warn("status", "line from the enclave is too long");
            ok = false;
        } else {
            evbuffer_remove(in, line, (size_t)eol.pos + 1);
            ok = take_line(r, slice_of(line, (size_t)eol.pos));
        }
        if (r->finished)
            return; /* the owner stops us */
        if (!ok) {
            unreadable(r);
            return;
        }
    }
}

/* ---- connections ---- */

static void lost(struct status_reader *r, const struct error *why)
{
    int64_t now = clock_mono_ms(), since = now - (r->lost_ms ? r->lost_ms : r->started_ms);
    int64_t budget = r->lost_ms ? STATUS_RECONNECT_MS : STATUS_FIRST_CONTACT_MS;
    struct error err;

    if (since < budget) {
        dial_later(r, since < EAGER_MS ? EAGER_PAUSE_MS : PAUSE_MS);
        return;
    }
    if (r->lost_ms)
        error_set(&err, ERR_NET,
                  "enclave died: its status connection ended and %d s of new tries "
                  "failed (%s)",
                  STATUS_RECONNECT_MS / 1000, why->msg);
    else
        error_set(&err, ERR_TIMEOUT, "the enclave did not come up within %d s (%s)",
                  STATUS_FIRST_CONTACT_MS / 1000, why->msg);
    give_up(r, &err);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct status_reader *r = arg;
    struct error err;

    (void)bev;
    (void)what;
    if (r->finished)
        return;
    disconnect(r);
    r->lost_ms = clock_mono_ms();
    if (!r->spoke) {
        unreadable(r); /* nor may an enclave that only hangs up keep us busy */
        return;
    }
    error_set(&err, ERR_NET, "connection closed");
    lost(r, &err);
}

static void on_connected(void *arg, int fd, const struct error *err)
{
    struct status_reader *r = arg;

    r->dial = NULL;
    if (fd < 0) {
        lost(r, err);
        return;
    }
    r->bev = bufferevent_socket_new(r->spec.base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!r->bev)
        abort(); /* out of memory */
    r->spoke = false;
    bufferevent_setcb(r->bev, on_read, NULL, on_event, r);
    bufferevent_setwatermark(r->bev, EV_READ, 0, 2 * STATUS_LINE_MAX + 2);
    bufferevent_enable(r->bev, EV_READ | EV_WRITE);
}

static void dial_now(struct status_reader *r)
{
    r->dial = carrier_dial(r->spec.carrier, VSOCK_PORT_STATUS, on_connected, r);
}

struct status_reader *status_reader_start(const struct status_reader_spec *spec)
{
    struct status_reader *r = xcalloc(1, sizeof(*r));

    r->spec = *spec;
    r->started_ms = clock_mono_ms();
    r->timer = evtimer_new(spec->base, on_timer, r);
    if (!r->timer)
        abort(); /* out of memory */
    dial_now(r);
    return r;
}

void status_reader_send_stop(struct status_reader *r, uint32_t grace_ms)
{
    r->want_stop = true;
    r->grace_ms = grace_ms;
    send_stop(r);
}

void status_reader_stop(struct status_reader *r)
{
    if (!r)
        return;
    dial_cancel(r->dial);
    disconnect(r);
    event_free(r->timer);
    free(r);
}
