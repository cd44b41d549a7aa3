#include "vsock/relay.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "vsock/listener.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>

#define COPY_BYTES    (64 * 1024)   /* the shared buffer of the small-message path */
#define PIPE_BYTES    (256 * 1024)  /* the most that waits in one direction */
#define BUDGET_BYTES  (1024 * 1024) /* per wake-up and direction, so that others get their turn */
#define BULK_AFTER    2             /* full buffers in a row before a direction moves to splice */
#define QUIET_AFTER   16            /* small splices in a row before it moves back */
#define IDLE_CHECK_MS 5000

struct side {
    int fd;
    bool readable; /* edge-triggered: true until a call says EAGAIN */
    bool writable;
    bool shut;  /* its peer has been told that no more comes */
    bool whole; /* its peer cannot end one direction alone */
    struct event *event;
    /*
     * Watched only while somebody waits for room: a UNIX socket would otherwise wake us for every
     * message that its peer reads.
     */
    struct event *room;
    bool watching_room;
};

/* One direction. Bytes in `held` are older than those in the pipe. */
struct flow {
    struct side *from, *to;
    uint8_t *held;
    size_t held_start, held_len;
    int pipe[2]; /* -1 until the direction is bulk */
    size_t piped;
    uint8_t full, small; /* evidence for and against splice */
    bool no_splice;      /* the sockets cannot, or there was no descriptor for a pipe */
    bool end_both;       /* the end of `from` ends both directions of `to` */
    bool ended;          /* `from` has ended; once all is delivered `to` is shut */
    uint64_t total;
};

struct relay {
    struct event_base *base;
    struct side a, b;
    struct flow ab, ba;
    struct event *idle; /* made when the first direction ends */
    int64_t idle_limit_ms;
    int64_t last_byte_ms;
    void (*ended)(void *arg, const struct relay_totals *totals);
    void *arg;
};

enum pump {
    PUMP_WAIT,  /* nothing more can be done now */
    PUMP_AGAIN, /* budget used up */
    PUMP_FAILED
};

/* All relays run in the loop's thread and none keeps bytes here between two calls. */
static uint8_t shared[COPY_BYTES];

void socket_abort(int *fd)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    if (*fd >= 0)
        (void)setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    fd_close(fd);
}

/* ---- one direction ---- */

static void drop_pipe(struct flow *f)
{
    fd_close(&f->pipe[0]);
    fd_close(&f->pipe[1]);
    f->full = f->small = 0;
}

static void enter_bulk(struct flow *f)
{
    if (pipe2(f->pipe, O_NONBLOCK | O_CLOEXEC) < 0) {
        f->pipe[0] = f->pipe[1] = -1;
        f->no_splice = true;
        return;
    }
    /* Past the user's pipe limit it stays at 64 KiB, which works too. */
    (void)fcntl(f->pipe[1], F_SETPIPE_SZ, PIPE_BYTES);
    f->small = 0;
}

static void hold(struct flow *f, const uint8_t *ptr, size_t len)
{
    if (!f->held)
        f->held = xmalloc(COPY_BYTES);
    memcpy(f->held, ptr, len);
    f->held_start = 0;
    f->held_len = len;
}

/* The receiving kind of socket cannot splice: what is in the pipe has to be copied out. */
static void unsplice(struct flow *f)
{
    ssize_t n = read(f->pipe[0], shared, sizeof(shared));

    f->no_splice = true;
    if (n <= 0)
        abort(); /* the pipe is ours, and we know what it holds */
    f->piped -= (size_t)n;
    hold(f, shared, (size_t)n);
}

/* Delivers what waits. Returns false when something still does, or *failed is set. */
static bool flush(struct flow *f, bool *failed)
{
    while (f->held_len || f->piped) {
        ssize_t n;

        if (!f->to->writable)
            return false;
        if (f->held_len)
            n = send(f->to->fd, f->held + f->held_start, f->held_len, MSG_NOSIGNAL);
        else
            n = splice(f->pipe[0], NULL, f->to->fd, NULL, f->piped, SPLICE_F_NONBLOCK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EINVAL && !f->held_len) {
            unsplice(f);
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            f->to->writable = false;
            return false;
        }
        if (n <= 0) {
            *failed = true;
            return false;
        }
        if (f->held_len) {
            f->held_start += (size_t)n;
            f->held_len -= (size_t)n;
        } else {
            f->piped -= (size_t)n;
        }
    }
    free(f->held);
    f->held = NULL;
    return true;
}

/* Both return the bytes moved, 0 at the end of `from`, -1 with errno. */
static ssize_t move_by_splice(struct flow *f)
{
    ssize_t n =
        splice(f->from->fd, NULL, f->pipe[1], NULL, PIPE_BYTES, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

    if (n < 0 && errno == EINVAL) {
        /* This kind of socket cannot. Nothing was taken from it. */
        drop_pipe(f);
        f->no_splice = true;
        errno = EINTR;
    }
    if (n <= 0)
        return n;
    f->piped = (size_t)n;
    f->small = n < COPY_BYTES / 4 ? f->small + 1 : 0;
    return n;
}

static ssize_t move_by_copy(struct flow *f)
{
    ssize_t n = recv(f->from->fd, shared, sizeof(shared), 0), sent;

    if (n <= 0)
        return n;
    sent = f->to->writable ? send(f->to->fd, shared, (size_t)n, MSG_NOSIGNAL) : 0;
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR)
            return -1;
        f->to->writable = errno != EAGAIN;
        sent = 0;
    }
    if (sent < n)
        hold(f, shared + sent, (size_t)(n - sent));
    f->full = n == (ssize_t)sizeof(shared)
                  ? (uint8_t)(f->full < BULK_AFTER ? f->full + 1 : BULK_AFTER)
                  : 0;
    if (f->full >= BULK_AFTER && !f->no_splice)
        enter_bulk(f);
    return n;
}

/*
 * The end of a vsock or UNIX stream: when its peer has not only ended its direction but closed,
 * although we have not ended ours, it was a reset (a relay closes only after both ends). A send of
 * nothing tells: it fails with EPIPE then, and for nothing else. TCP reports resets itself.
 */
static bool was_reset(const struct side *s)
{
    return !s->shut && !s->whole && send(s->fd, "", 0, MSG_NOSIGNAL) < 0 && errno == EPIPE;
}

static enum pump pump(struct flow *f)
{
    size_t moved = 0;
    bool failed = false;

    for (;;) {
        ssize_t n;

        if (!flush(f, &failed))
            return failed ? PUMP_FAILED : PUMP_WAIT;
        if (f->ended) {
            if (!f->to->shut) {
                f->to->shut = true;
                if (shutdown(f->to->fd, f->end_both ? SHUT_RDWR : SHUT_WR) < 0 && errno != ENOTCONN)
                    return PUMP_FAILED;
                if (f->end_both) {
                    f->to->readable = true; /* its end, which we have just made */
                    return PUMP_AGAIN;
                }
            }
            return PUMP_WAIT;
        }
        if (!f->from->readable)
            return PUMP_WAIT;
        if (moved >= BUDGET_BYTES)
            return PUMP_AGAIN;
        if (f->pipe[0] >= 0 && (f->small >= QUIET_AFTER || f->no_splice))
            drop_pipe(f);
        n = f->pipe[0] >= 0 ? move_by_splice(f) : move_by_copy(f);
        if (n > 0) {
            f->total += (uint64_t)n;
            moved += (size_t)n;
        } else if (n == 0) {
            if (was_reset(f->from))
                return PUMP_FAILED;
            f->ended = true;
        } else if (errno == EAGAIN) {
            f->from->readable = false;
        } else if (errno != EINTR) {
            return PUMP_FAILED;
        }
    }
}

/* ---- the pair ---- */

static void side_drop(struct side *s, bool reset)
{
    event_free(s->event);
    event_free(s->room);
    if (reset)
        socket_abort(&s->fd);
    else
        fd_close(&s->fd);
}

static void destroy(struct relay *r, bool reset)
{
    side_drop(&r->a, reset);
    side_drop(&r->b, reset);
    for (int i = 0; i < 2; i++) {
        struct flow *f = i ? &r->ba : &r->ab;

        drop_pipe(f);
        free(f->held);
    }
    if (r->idle)
        event_free(r->idle);
    free(r);
}

static void end(struct relay *r, bool reset)
{
    struct relay_totals totals = {r->ab.total, r->ba.total, reset};
    void (*ended)(void *, const struct relay_totals *) = r->ended;
    void *arg = r->arg;

    destroy(r, reset);
    ended(arg, &totals);
}

static void on_idle_check(evutil_socket_t fd, short what, void *arg)
{
    struct relay *r = arg;

    (void)fd;
    (void)what;
    if (clock_mono_ms() - r->last_byte_ms >= r->idle_limit_ms)
        end(r, true);
}

static void watch_idle(struct relay *r)
{
    int64_t ms = r->idle_limit_ms < IDLE_CHECK_MS ? r->idle_limit_ms : IDLE_CHECK_MS;
    struct timeval tv = clock_timeval(ms);

    r->idle = event_new(r->base, -1, EV_PERSIST, on_idle_check, r);
    if (!r->idle)
        abort(); /* out of memory */
    event_add(r->idle, &tv);
}

static void watch_room(struct side *s, const struct flow *f)
{
    if (!s->writable && !s->watching_room)
        event_add(s->room, NULL);
    else if (s->watching_room && !f->held_len && f->pipe[0] < 0)
        event_del(s->room);
    else
        return;
    s->watching_room = !s->watching_room;
}

static void run(struct relay *r)
{
    uint64_t before = r->ab.total + r->ba.total;
    enum pump ab = pump(&r->ab), ba = pump(&r->ba);

    if (ab == PUMP_FAILED || ba == PUMP_FAILED) {
        end(r, true);
        return;
    }
    if (r->a.shut && r->b.shut) {
        end(r, false);
        return;
    }
    watch_room(&r->b, &r->ab);
    watch_room(&r->a, &r->ba);
    if (ab == PUMP_AGAIN || ba == PUMP_AGAIN)
        event_active(r->a.event, 0, 0);
    if ((r->a.shut || r->b.shut) && (!r->idle || r->ab.total + r->ba.total != before)) {
        r->last_byte_ms = clock_mono_ms();
        if (!r->idle)
            watch_idle(r);
    }
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    struct relay *r = arg;
    struct side *s = (int)fd == r->a.fd ? &r->a : &r->b;

    s->readable |= (what & EV_READ) != 0;
    s->writable |= (what & EV_WRITE) != 0;
    run(r);
}

static void side_init(struct relay *r, struct side *s, int fd)
{
    socket_tune_tcp(fd);
    *s = (struct side){.fd = fd, .writable = true};
    /* Edge-triggered: one registration for the life of the pair, no epoll_ctl() for each message.
     */
    s->event = event_new(r->base, fd, EV_READ | EV_PERSIST | EV_ET, on_ready, r);
    s->room = event_new(r->base, fd, EV_WRITE | EV_PERSIST | EV_ET, on_ready, r);
    if (!s->event || !s->room || event_add(s->event, NULL) < 0)
        abort(); /* out of memory */
}

struct relay *relay_new(struct event_base *base, int a, int b,
                        void (*ended)(void *arg, const struct relay_totals *totals), void *arg)
{
    struct relay *r = xcalloc(1, sizeof(*r));

    r->base = base;
    r->ended = ended;
    r->arg = arg;
    r->idle_limit_ms = RELAY_HALF_CLOSED_MS;
    side_init(r, &r->a, a);
    side_init(r, &r->b, b);
    r->ab = (struct flow){.from = &r->a, .to = &r->b, .pipe = {-1, -1}};
    r->ba = (struct flow){.from = &r->b, .to = &r->a, .pipe = {-1, -1}};
    return r;
}

int relay_seed(struct relay *r, struct slice from_a, struct error *err)
{
    if (from_a.len > PIPE_BYTES)
        return error_set(err, ERR_LIMIT, "%zu bytes before the relay began, at most %d allowed",
                         from_a.len, PIPE_BYTES);
    if (from_a.len == 0)
        return 0;
    r->ab.held = xmemdup(from_a.ptr, from_a.len);
    r->ab.held_len = from_a.len;
    r->ab.total = from_a.len;
    event_active(r->a.event, 0, 0); /* no socket event will come for them */
    return 0;
}

void relay_set_idle_limit(struct relay *r, int64_t half_closed_ms)
{
    r->idle_limit_ms = half_closed_ms;
}

void relay_set_whole_link(struct relay *r, enum relay_side side, bool end_both)
{
    (side == RELAY_A ? &r->a : &r->b)->whole = true;
    (side == RELAY_A ? &r->ba : &r->ab)->end_both = end_both;
}

void relay_abort(struct relay *r)
{
    if (r)
        destroy(r, true);
}
