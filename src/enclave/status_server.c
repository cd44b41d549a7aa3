#include "enclave/status_server.h"

#include "base/clock.h"
#include "base/log.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdio.h>
#include <sys/queue.h>

#define CONNECTIONS_MAX    64
#define STALLED_SECS       30
#define COMMAND_SPACING_MS 1000

struct watcher {
    LIST_ENTRY(watcher) link;
    struct status_server *server;
    struct bufferevent *bev;
    bool skipping; /* inside a line that is too long */
    bool sent_final;
};

/* When a command was taken, so that the next one can be told to wait. */
struct last {
    bool happened;
    int64_t ms;
};

struct status_server {
    struct status_server_spec spec;
    struct listener *listener;
    struct status now;
    LIST_HEAD(, watcher) watchers;
    struct last last_stop, last_stats;
    struct log_rate complaint;
    bool taken;
};

static void watcher_free(struct watcher *w)
{
    LIST_REMOVE(w, link);
    bufferevent_free(w->bev);
    listener_done(w->server->listener);
    free(w);
}

static void send_state(struct watcher *w)
{
    AUTO_BUF struct buf line = BUF(STATUS_LINE_MAX + 1);

    if (w->sent_final)
        return;
    status_format(&w->server->now, &line);
    bufferevent_write(w->bev, line.ptr, line.len);
    w->sent_final = status_is_final(&w->server->now);
}

static bool too_soon(struct last *last)
{
    int64_t now = clock_mono_ms();

    if (last->happened && now - last->ms < COMMAND_SPACING_MS)
        return true;
    *last = (struct last){true, now};
    return false;
}

static void send_stats(struct watcher *w)
{
    const struct status_server_spec *spec = &w->server->spec;
    AUTO_BUF struct buf line = BUF(STATUS_LINE_MAX + 1);

    if (!spec->stats || w->sent_final)
        return;
    spec->stats(spec->arg, &line);
    bufferevent_write(w->bev, line.ptr, line.len);
}

static void command(struct watcher *w, struct slice line)
{
    struct status_server *s = w->server;
    struct host_command cmd;
    struct error err;
    uint64_t suppressed;

    if (host_command_parse(line, &cmd, &err) < 0) {
        if (log_rate_allow(&s->complaint, &suppressed))
            log_debug("status", "ignored a line from the host", kv_str("reason", err.msg),
                      kv_uint("suppressed", suppressed));
    } else if (cmd.kind == COMMAND_STATS) {
        if (!too_soon(&s->last_stats))
            send_stats(w);
    } else if (!too_soon(&s->last_stop)) {
        s->spec.stop(s->spec.arg, &cmd);
    }
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct watcher *w = arg;
    struct evbuffer *in = bufferevent_get_input(bev);

    for (;;) {
        struct evbuffer_ptr eol = evbuffer_search_eol(in, NULL, NULL, EVBUFFER_EOL_LF);
        char line[STOP_LINE_MAX + 1];
        ssize_t len = eol.pos;

        if (len < 0) {
            if (w->skipping || evbuffer_get_length(in) > STOP_LINE_MAX) {
                w->skipping = true;
                evbuffer_drain(in, evbuffer_get_length(in));
            }
            return;
        }
        if (w->skipping || len > STOP_LINE_MAX) {
            evbuffer_drain(in, (size_t)len + 1);
            w->skipping = false;
            continue;
        }
        evbuffer_remove(in, line, (size_t)len + 1);
        command(w, slice_of(line, (size_t)len));
    }
}

static void on_end(struct bufferevent *bev, short what, void *arg)
{
    struct watcher *w = arg;

    (void)bev;
    (void)what; /* closed, failed, or did not read for too long */
    if (w->sent_final)
        w->server->taken = true;
    watcher_free(w);
}

static void on_accept(void *arg, int fd)
{
    const struct timeval stalled = {.tv_sec = STALLED_SECS};
    struct status_server *s = arg;
    struct watcher *w = xcalloc(1, sizeof(*w));

    w->server = s;
    w->bev = bufferevent_socket_new(s->spec.base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!w->bev)
        abort(); /* out of memory */
    LIST_INSERT_HEAD(&s->watchers, w, link);
    bufferevent_setcb(w->bev, on_read, NULL, on_end, w);
    bufferevent_setwatermark(w->bev, EV_READ, 0, 2 * STOP_LINE_MAX);
    bufferevent_set_timeouts(w->bev, NULL, &stalled);
    bufferevent_enable(w->bev, EV_READ | EV_WRITE);
    send_state(w);
}

int status_server_start(const struct status_server_spec *spec, struct status_server **out,
                        struct error *err)
{
    struct status_server *s = xcalloc(1, sizeof(*s));
    struct listener_spec listen = {
        .name = "status", .max = CONNECTIONS_MAX, .accepted = on_accept, .arg = s};

    s->spec = *spec;
    s->complaint.burst = 5;
    s->now = (struct status){.kind = STATUS_RUNNING,
                             .phase = PHASE_BOOTING,
                             .can_stop = true,
                             .has_stats = spec->stats != NULL};
    LIST_INIT(&s->watchers);
    if (carrier_listen(spec->carrier, VSOCK_PORT_STATUS, &listen, &s->listener, err) < 0) {
        free(s);
        return error_wrap(err, "status server");
    }
    *out = s;
    return 0;
}

void status_server_set(struct status_server *s, const struct status *status)
{
    struct watcher *w;

    if (status_is_final(&s->now))
        return;
    s->now = *status;
    LIST_FOREACH(w, &s->watchers, link)
    send_state(w);
}

void status_server_set_phase(struct status_server *s, enum status_phase phase)
{
    struct status next = s->now;

    if (next.kind != STATUS_RUNNING || next.phase == phase)
        return;
    next.phase = phase;
    status_server_set(s, &next);
}

void status_server_set_fatal(struct status_server *s, const struct error *why)
{
    struct status fatal = {.kind = STATUS_FATAL};

    snprintf(fatal.error, sizeof(fatal.error), "%.700s%s%.250s%s", why->msg,
             why->hint[0] ? " (" : "", why->hint, why->hint[0] ? ")" : "");
    status_server_set(s, &fatal);
}

void status_server_set_log2(struct status_server *s, bool has_log2)
{
    s->now.has_log2 = has_log2;
}

bool status_server_taken(const struct status_server *s)
{
    return s->taken;
}

void status_server_stop(struct status_server *s)
{
    if (!s)
        return;
    while (!LIST_EMPTY(&s->watchers))
        watcher_free(LIST_FIRST(&s->watchers));
    carrier_unlisten(s->spec.carrier, s->listener);
    free(s);
}
