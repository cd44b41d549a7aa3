#include "enclave/clock_client.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "vsock/clockproto.h"

#include <errno.h>
#include <event2/event.h>
#include <sys/socket.h>
#include <sys/timex.h>
#include <time.h>

#define CONNECT_SECS    5
#define EXCHANGE_SECS   5
#define EARLY_TRIES     10 /* until the first success, two seconds apart */
#define EARLY_PAUSE_MS  2000
#define DOUBT_PAUSE_MS  5000
#define DISAGREEMENT_NS INT64_C(10000000000)
#define DRIFT_MAX_NS    INT64_C(500000000) /* in a round; more is a jump and no rate */
#define UNSURE_MAX_NS   INT64_C(1000000)   /* half a round trip; more is a slow answer */

struct clock_client {
    struct clock_client_spec spec;
    struct dial *dial;
    int fd;
    struct event *reply; /* readable */
    struct event *limit; /* of the connect, then of the exchange: a peer that drips gains nothing */
    struct event *timer; /* next round */
    char line[CLOCK_REPLY_MAX + 1];
    size_t line_len;
    struct clock_sample now;
    int samples; /* done in this round */
    struct clock_sample best;
    bool has_best;
    int64_t expected_ns; /* the offset this round should find */
    /* For the rate: the offset that the last round left, what of it was still to be slewed, when.
     */
    int64_t left_ns, pending_ns, left_at_ns;
    int64_t last_good_ms;
    unsigned early_failures;
    struct clock_client_stats stats;
};

static void start_sample(struct clock_client *c);

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct clock_client *c = arg;

    (void)fd;
    (void)what;
    c->samples = 0;
    c->has_best = false;
    start_sample(c);
}

static void next_round(struct clock_client *c, int64_t ms)
{
    struct timeval tv = clock_timeval(ms);

    event_add(c->timer, &tv);
}

static int64_t interval_ms(const struct clock_client *c)
{
    uint64_t secs = c->spec.interval_secs;

    return (int64_t)(secs > 86400 * 365 ? 86400 * 365 : secs) * 1000;
}

/* ---- setting the clock ---- */

static int step_clock(int64_t offset)
{
    int64_t now = clock_real_ns() + offset;
    struct timespec ts = {.tv_sec = now / 1000000000, .tv_nsec = now % 1000000000};

    return clock_settime(CLOCK_REALTIME, &ts);
}

static int slew_clock(int64_t offset)
{
    struct timex tx = {.modes = ADJ_OFFSET_SINGLESHOT, .offset = (long)(offset / 1000)};

    return adjtimex(&tx) < 0 ? -1 : 0;
}

/* What an earlier slew has not done yet. */
static int64_t slew_pending(void)
{
    struct timex tx = {.modes = ADJ_OFFSET_SS_READ};

    return adjtimex(&tx) < 0 ? 0 : (int64_t)tx.offset * 1000;
}

/*
 * A clock that runs fast or slow is off again at every round, the more the longer the interval. So
 * what a round finds beside what the last one left goes into the clock's rate: half of it, because
 * a part of it is the noise of the measurement, and nothing of it after a slow answer when all may
 * be noise, which would spoil the rate for rounds to come. The kernel bounds the rate to 500 ppm.
 */
static void correct_rate(struct clock_client *c, int64_t offset)
{
    int64_t elapsed = clock_mono_ns() - c->left_at_ns;
    int64_t expected = c->left_ns - (c->pending_ns - slew_pending());
    __int128 drift = (__int128)offset - expected;
    int64_t unsure = clock_rtt(&c->best) / 2;
    struct timex tx = {0};

    if (elapsed <= 0 || drift > DRIFT_MAX_NS || drift < -DRIFT_MAX_NS)
        return;
    if (unsure > UNSURE_MAX_NS && drift <= unsure && drift >= -unsure)
        return;
    if (adjtimex(&tx) < 0)
        return;
    /* Units of 2^-16 ppm. */
    tx.freq += (long)(drift * 1000000 * 65536 / elapsed / 2);
    tx.modes = ADJ_FREQUENCY;
    if (adjtimex(&tx) < 0)
        log_debug("clock", "cannot set the rate", kv_str("reason", strerror(errno)));
    else
        log_debug("clock", "rate", kv_int("ppm", tx.freq / 65536));
}

static void note_left(struct clock_client *c, int64_t left)
{
    c->left_ns = left;
    c->pending_ns = slew_pending();
    c->left_at_ns = clock_mono_ns();
}

/* Returns the offset that the next round should find. */
static int64_t apply(struct clock_client *c, int64_t offset)
{
    enum clock_action action = clock_decide(offset, !c->stats.synced, c->spec.max_step_secs);
    int64_t before = clock_real_ns();
    int rc = 0;

    if (c->spec.measure_only)
        return offset;
    if (c->stats.synced)
        correct_rate(c, offset);
    switch (action) {
    case CLOCK_KEEP:
        note_left(c, offset);
        return 0;
    case CLOCK_SLEW:
        rc = slew_clock(offset);
        break;
    case CLOCK_STEP:
        rc = step_clock(offset);
        log_at(c->stats.synced ? LOG_WARN : LOG_INFO, "clock", "stepped",
               kv_int("old_ms", before / 1000000), kv_int("new_ms", (before + offset) / 1000000));
        break;
    case CLOCK_REFUSE:
        log_warn("clock", "refused a step beyond max_step_secs", kv_int("old_ms", before / 1000000),
                 kv_int("offered_ms", (before + offset) / 1000000));
        return offset;
    }
    if (rc < 0)
        log_warn("clock", "cannot set the clock", kv_str("reason", strerror(errno)));
    note_left(c, rc == 0 && action == CLOCK_STEP ? 0 : offset);
    return rc < 0 ? offset : 0;
}

static void round_failed(struct clock_client *c)
{
    c->stats.rounds_failed++;
    if (!c->stats.synced && ++c->early_failures < EARLY_TRIES) {
        next_round(c, EARLY_PAUSE_MS);
        return;
    }
    log_warn("clock", "no usable answer from the host",
             kv_uint("failed_rounds", c->stats.rounds_failed));
    next_round(c, interval_ms(c));
}

static void round_done(struct clock_client *c)
{
    int64_t offset;

    if (!c->has_best) {
        round_failed(c);
        return;
    }
    offset = clock_offset(&c->best);
    if (c->stats.synced) {
        __int128 gap = (__int128)offset - c->expected_ns;

        /* One odd answer moves nothing: the next round has to agree with it. */
        if (gap > DISAGREEMENT_NS || gap < -DISAGREEMENT_NS) {
            log_warn("clock", "two rounds disagree, keeping the old time",
                     kv_int("offset_ms", offset / 1000000),
                     kv_int("expected_ms", c->expected_ns / 1000000));
            c->expected_ns = offset;
            c->stats.rounds_failed++;
            next_round(c, DOUBT_PAUSE_MS);
            return;
        }
    }
    c->stats.offset_ns = offset;
    c->stats.rtt_ns = clock_rtt(&c->best);
    log_debug("clock", "round", kv_int("offset_us", offset / 1000),
              kv_int("rtt_us", c->stats.rtt_ns / 1000));
    c->expected_ns = apply(c, offset);
    c->stats.synced = true;
    c->stats.rounds_good++;
    c->last_good_ms = clock_mono_ms();
    next_round(c, interval_ms(c));
}

/* ---- one exchange ---- */

static void sample_done(struct clock_client *c, bool complete)
{
    int64_t limit = c->stats.synced ? CLOCK_RTT_LATER : CLOCK_RTT_FIRST;
    struct error err;

    event_del(c->limit);
    if (c->reply)
        event_free(c->reply);
    c->reply = NULL;
    fd_close(&c->fd);
    if (complete && clock_parse_reply(slice_of(c->line, c->line_len), &c->now, &err) < 0) {
        log_debug("clock", "bad reply", kv_str("reason", err.msg));
        complete = false;
    }
    if (complete && clock_sample_usable(&c->now, limit) &&
        (!c->has_best || clock_rtt(&c->now) < clock_rtt(&c->best))) {
        c->best = c->now;
        c->has_best = true;
    }
    /* Without an answer at all the rest of the round is pointless. */
    if (++c->samples >= CLOCK_SAMPLES || !complete)
        round_done(c);
    else
        start_sample(c);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
    struct clock_client *c = arg;

    (void)fd;
    (void)what;
    log_debug("clock", "the host's clock took too long");
    dial_cancel(c->dial);
    c->dial = NULL;
    sample_done(c, false);
}

static void on_reply(evutil_socket_t fd, short what, void *arg)
{
    struct clock_client *c = arg;
    char *eol;
    ssize_t n;

    (void)what;
    n = recv((int)fd, c->line + c->line_len, sizeof(c->line) - c->line_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        sample_done(c, false);
        return;
    }
    c->now.t4 = clock_real_ns();
    c->line_len += (size_t)n;
    eol = memchr(c->line, '\n', c->line_len);
    if (eol) {
        c->line_len = (size_t)(eol - c->line);
        sample_done(c, true);
    } else if (c->line_len == sizeof(c->line)) {
        sample_done(c, false);
    }
}

static void on_connected(void *arg, int fd, const struct error *err)
{
    const struct timeval limit = {.tv_sec = EXCHANGE_SECS};
    struct clock_client *c = arg;

    c->dial = NULL;
    if (fd < 0) {
        log_debug("clock", "cannot reach the host's clock", kv_str("reason", err->msg));
        sample_done(c, false);
        return;
    }
    c->fd = fd;
    c->line_len = 0;
    c->reply = event_new(c->spec.base, fd, EV_READ | EV_PERSIST, on_reply, c);
    if (!c->reply)
        abort(); /* out of memory */
    event_add(c->reply, NULL);
    event_add(c->limit, &limit);
    c->now = (struct clock_sample){.t1 = clock_real_ns()};
    if (send(fd, CLOCK_REQUEST, CLOCK_REQUEST_LEN, MSG_NOSIGNAL) != CLOCK_REQUEST_LEN)
        sample_done(c, false);
}

static void start_sample(struct clock_client *c)
{
    const struct timeval limit = {.tv_sec = CONNECT_SECS};
    uint32_t port = 0;

    if (vsock_host_port(carrier_cid(c->spec.carrier), VSOCK_OFFSET_CLOCK, &port, NULL) < 0)
        abort(); /* a carrier has a valid CID */
    event_add(c->limit, &limit);
    c->dial = carrier_dial(c->spec.carrier, port, on_connected, c);
}

struct clock_client *clock_client_start(const struct clock_client_spec *spec)
{
    struct clock_client *c = xcalloc(1, sizeof(*c));

    c->spec = *spec;
    c->fd = -1;
    c->timer = evtimer_new(spec->base, on_timer, c);
    c->limit = evtimer_new(spec->base, on_limit, c);
    if (!c->timer || !c->limit)
        abort(); /* out of memory */
    start_sample(c);
    return c;
}

bool clock_client_tried(const struct clock_client *c)
{
    return c->stats.rounds_good + c->stats.rounds_failed > 0;
}

struct clock_client_stats clock_client_stats_of(const struct clock_client *c)
{
    struct clock_client_stats stats = c->stats;

    stats.age_ms = stats.synced ? clock_mono_ms() - c->last_good_ms : 0;
    return stats;
}

void clock_client_stop(struct clock_client *c)
{
    if (!c)
        return;
    dial_cancel(c->dial);
    if (c->reply)
        event_free(c->reply);
    event_free(c->timer);
    event_free(c->limit);
    fd_close(&c->fd);
    free(c);
}
