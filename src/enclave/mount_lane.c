#include "enclave/mount_lane.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "enclave/fuse_check.h"
#include "enclave/mount_ahead.h"
#include "enclave/mount_dead.h"
#include "enclave/mount_fuse.h"
#include "enclave/mount_splice.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <linux/fuse.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#define BUFFER_LEN MOUNT_MESSAGE_MAX
/* What is read of replies whose length is not known yet; a long one's rest goes where it belongs.
 */
#define CHUNK     (64u * 1024)
#define TICK_MS   10000 /* how often overdue replies are looked for */
#define SHRINK_MS 2000  /* without traffic, until the memory of long messages is given back */
#define STUCK_MS  5     /* without being able to take a request: another lane is called */
#define LOOKS     256   /* for messages alone, before the other descriptors get their turn */
#define AHEAD_NS  50000 /* for the reply to what was asked ahead, before the host is asked again */
#define CALM      64    /* times that few requests waited, until another lane's turn is enough */

struct mount_lane {
    struct mount_lanes *group;
    pthread_t thread;
    int fuse_fd, socket, poll_fd;
    unsigned index;
    bool turn;        /* it takes requests (mount_turns.h) */
    bool able;        /* as the group knows */
    int64_t stuck_ms; /* when the group is told that it is not, or 0 */
    unsigned calm;    /* times in a row that few requests waited */
    size_t counted;   /* of its requests, by the group */
    bool taking;      /* fuse_fd is being watched */
    bool blocked;     /* the socket is watched for room */
    bool swollen;     /* the buffers have held more than a chunk */
    bool finishing;
    bool done; /* counted in the group's `done` */
    int64_t next_look_ms;
    int64_t awake_ns; /* until then it looks for more without sleeping */
    bool awake;       /* it has the group's flag for that */
    struct fuse_check check;
    uint8_t *out; /* one request, sent up to out_sent */
    size_t out_len, out_sent;
    uint8_t *in; /* replies */
    size_t in_len;
    size_t in_want; /* whole length of the first one; 0: not known */
    struct mount_pipe out_pipe, in_pipe;
    bool writes;  /* the last request was a long WRITE: the next one goes through the pipe */
    bool reads;   /* the last reply was to a long READ: of the next one the header is read first */
    bool copying; /* the pipe does not suit the first reply of the input */
};

/* ---- who takes requests ---- */

static int watch(struct mount_lane *l, int op, int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.fd = fd};

    return epoll_ctl(l->poll_fd, op, fd, &e);
}

/*
 * Only one of the lanes is woken for a request: EPOLLEXCLUSIVE, which can be put on and off but not
 * changed.
 */
static int watch_kernel(struct mount_lane *l, bool on, struct error *err)
{
    if (l->taking == on)
        return 0;
    if (watch(l, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, l->fuse_fd, EPOLLIN | EPOLLEXCLUSIVE) < 0)
        return error_sys(err, errno, "watching /dev/fuse");
    l->taking = on;
    return 0;
}

static bool is_able(const struct mount_lane *l)
{
    return l->out_len == 0 && !fuse_check_full(&l->check);
}

/* Watches for the kernel's requests as long as it has the turn and can take one. */
static int take_turn(struct mount_lane *l, int64_t now_ms, struct error *err)
{
    bool able = is_able(l);

    if (able)
        l->stuck_ms = 0;
    else if (l->stuck_ms == 0)
        l->stuck_ms = now_ms + STUCK_MS;
    if (able != l->able && (able || now_ms >= l->stuck_ms)) {
        l->able = able;
        mount_turns_set_able(&l->group->turns, l->index, able);
    }
    if (l->calm >= CALM) {
        l->calm = 0;
        if (mount_turns_rest(&l->group->turns, l->index))
            l->turn = false;
    }
    return watch_kernel(l, l->turn && able, err);
}

/* Tells the others how many of our requests wait. */
static void count_requests(struct mount_lane *l)
{
    struct mount_turns *t = &l->group->turns;

    if (l->check.count != l->counted)
        mount_turns_count(t, (int)l->check.count - (int)l->counted);
    l->counted = l->check.count;
}

/* ---- sending requests ---- */

/* Something moves: more may come soon. */
static void stir(struct mount_lane *l)
{
    l->awake_ns = clock_mono_ns() + MOUNT_AWAKE_NS;
}

static int watch_room(struct mount_lane *l, bool on, struct error *err)
{
    if (l->blocked == on)
        return 0;
    if (watch(l, EPOLL_CTL_MOD, l->socket, EPOLLIN | (on ? (uint32_t)EPOLLOUT : 0)) < 0)
        return error_sys(err, errno, "watching the host's connection");
    l->blocked = on;
    return 0;
}

static ssize_t send_some(struct mount_lane *l)
{
    ssize_t n;

    if (l->out_sent == l->out_len)
        return mount_pipe_send(&l->out_pipe, l->socket);
    n = send(l->socket, l->out + l->out_sent, l->out_len - l->out_sent,
             MSG_NOSIGNAL | MSG_DONTWAIT | (l->out_pipe.held ? MSG_MORE : 0));
    if (n > 0)
        l->out_sent += (size_t)n;
    return n;
}

/* Sends what is left of the request; the next one is taken only after it. */
static int send_request(struct mount_lane *l, struct error *err)
{
    while (l->out_sent < l->out_len || l->out_pipe.held > 0) {
        ssize_t n = send_some(l);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            return error_sys(err, errno, "sending to the host");
    }
    if (l->out_sent == l->out_len && l->out_pipe.held == 0)
        l->out_len = l->out_sent = 0;
    return watch_room(l, l->out_len > 0, err);
}

/* ---- replies ---- */

/* Nothing here waits for that reply any more, but somebody in the kernel may. */
static int not_taken(const struct mount_lane *l, const uint8_t *reply, struct error *err)
{
    struct fuse_out_header h;

    error_sys(err, errno, "giving a reply to the kernel");
    memcpy(&h, reply, sizeof(h));
    mount_dead_answer(l->fuse_fd, h.unique);
    return -1;
}

/* The kernel may have given up an interrupted lock, say, on another lane: ENOENT. */
static int give_kernel(const struct mount_lane *l, struct slice reply, struct error *err)
{
    ssize_t n;

    do
        n = write(l->fuse_fd, reply.ptr, reply.len);
    while (n < 0 && errno == EINTR);
    return n < 0 && errno != ENOENT ? not_taken(l, reply.ptr, err) : 0;
}

/*
 * What a RENAME has changed is forgotten before the kernel can ask for it. True: we asked for the
 * reply ourselves, and the kernel gets none.
 */
static bool keep_ahead(struct mount_lane *l, uint64_t unique, uint32_t opcode, struct slice reply)
{
    if (opcode == FUSE_RENAME || opcode == FUSE_RENAME2)
        mount_ahead_forget(&l->group->ahead);
    if (!mount_ahead_is_ours(unique))
        return false;
    mount_ahead_keep(&l->group->ahead, reply, clock_mono_ms());
    return true;
}

/* `reply` to FUSE_INIT is good and in `in`: its bytes are ours to change. */
static void settle_init(struct mount_lane *l, uint8_t *reply, size_t len)
{
    struct fuse_init_out out;

    if (len != sizeof(struct fuse_out_header) + sizeof(out))
        return;
    memcpy(&out, reply + sizeof(struct fuse_out_header), sizeof(out));
    mount_pipe_limit(&l->out_pipe, &out);
    /*
     * The host knows only what the kernel offered before anybody could set it (mount_fuse_tune, the
     * sandbox's launcher). The kernel takes the lesser of this and what the mount has been given.
     */
    out.max_readahead = MOUNT_READ_AHEAD;
    memcpy(reply + sizeof(struct fuse_out_header), &out, sizeof(out));
}

static int give_reply(struct mount_lane *l, struct slice reply, struct error *err)
{
    bool was_initialized = l->check.initialized, initializes;
    struct fuse_out_header h;
    uint32_t opcode;

    memcpy(&h, reply.ptr, sizeof(h));
    opcode = fuse_check_opcode(&l->check, h.unique);
    if (fuse_check_reply(&l->check, reply, err) < 0)
        return error_wrap(err, "refused what the host says");
    if (keep_ahead(l, h.unique, opcode, reply))
        return 0;
    initializes = l->check.initialized && !was_initialized;
    if (initializes)
        settle_init(l, l->in + (reply.ptr - l->in), reply.len);
    if (give_kernel(l, reply, err) < 0)
        return -1;
    if (initializes) {
        atomic_store(&l->group->initialized, true);
        (void)eventfd_write(l->group->ready_fd, 1);
    }
    return 0;
}

/*
 * The first reply, of which the header is good, goes on through the pipe if it is long content that
 * nobody looks at. Its checked header, and what else is here of it, goes in first.
 */
static void start_splicing(struct mount_lane *l, const uint8_t *reply, size_t have)
{
    l->reads = !l->copying && l->in_pipe.read_fd >= 0 && l->in_want >= MOUNT_SPLICE_MIN &&
               l->in_want <= l->in_pipe.payload_max + FUSE_HEADER_LEN &&
               fuse_check_unseen(&l->check, slice_of(reply, FUSE_HEADER_LEN));
    if (l->reads && !mount_pipe_put(&l->in_pipe, reply, have))
        mount_pipe_close(&l->in_pipe);
}

/* Gives on every whole reply of the input, and keeps the rest. */
static int give_replies(struct mount_lane *l, struct error *err)
{
    size_t at = 0;

    l->in_want = 0;
    while (l->in_len - at >= FUSE_HEADER_LEN) {
        size_t len;

        if (fuse_check_header(&l->check, slice_of(l->in + at, FUSE_HEADER_LEN), &len, err) < 0)
            return error_wrap(err, "refused what the host says");
        if (len > l->in_len - at) {
            l->in_want = len;
            start_splicing(l, l->in + at, l->in_len - at);
            break;
        }
        l->copying = false;
        if (give_reply(l, slice_of(l->in + at, len), err) < 0)
            return -1;
        at += len;
    }
    l->in_len -= at;
    if (at && l->in_len)
        memmove(l->in, l->in + at, l->in_len);
    return 0;
}

/* A long reply is read up to its end and no further, so that nothing long has to be moved. */
static size_t room_wanted(const struct mount_lane *l)
{
    if (l->in_want > CHUNK)
        return l->in_want - l->in_len;
    if (l->reads && l->in_pipe.read_fd >= 0 && l->in_len < FUSE_HEADER_LEN)
        return FUSE_HEADER_LEN - l->in_len;
    return CHUNK - l->in_len;
}

/* The reply is all in the pipe, and its header also where it always is. */
static int give_spliced(struct mount_lane *l, struct error *err)
{
    ssize_t n;

    if (fuse_check_reply(&l->check, slice_of(l->in, l->in_want), err) < 0)
        return error_wrap(err, "refused what the host says");
    n = mount_pipe_reply(&l->in_pipe, l->fuse_fd);
    if (n < 0 && errno != ENOENT)
        return not_taken(l, l->in, err);
    l->in_len = l->in_want = 0;
    stir(l);
    return 0;
}

static int receive_spliced(struct mount_lane *l, struct error *err)
{
    ssize_t n = mount_pipe_receive(&l->in_pipe, l->socket, l->in_want - l->in_pipe.held);

    if (n < 0 && errno == EAGAIN) {
        /* There was something to receive: the pipe is full of pieces that fill no pages. */
        l->in_len = l->in_pipe.held;
        l->copying = true;
        if (!mount_pipe_drain(&l->in_pipe, l->in))
            return error_sys(err, errno, "reading from a pipe");
        return 0;
    }
    if (n < 0 && errno == EINTR)
        return 0;
    if (n == 0)
        return error_set(err, ERR_NET, "the host closed the connection");
    if (n < 0)
        return error_sys(err, errno, "receiving from the host");
    stir(l);
    return l->in_pipe.held < l->in_want ? 0 : give_spliced(l, err);
}

static int receive(struct mount_lane *l, struct error *err)
{
    size_t room = room_wanted(l);
    ssize_t n;

    if (l->in_pipe.held > 0)
        return receive_spliced(l, err);
    n = recv(l->socket, l->in + l->in_len, room, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n == 0)
        return error_set(err, ERR_NET, "the host closed the connection");
    if (n < 0)
        return error_sys(err, errno, "receiving from the host");
    stir(l);
    l->in_len += (size_t)n;
    l->swollen |= l->in_len > CHUNK;
    if (l->in_want > l->in_len)
        return 0;
    return give_replies(l, err);
}

/* ---- taking requests ---- */

static int refuse_request(const struct mount_lane *l, int error, struct error *err)
{
    struct fuse_in_header h;

    memcpy(&h, l->out, sizeof(h));
    if (mount_fuse_refuse(l->fuse_fd, h.unique, error) < 0)
        return error_sys(err, errno, "giving a reply to the kernel");
    return 0;
}

/*
 * Answers the request in `out` if its answer is known, or comes at once. Returns 1 when it has, 0
 * when not, -1.
 */
static int answer_ahead(struct mount_lane *l, size_t len, int64_t now_ms, struct error *err)
{
    struct mount_ahead *a = &l->group->ahead;
    const struct slice request = slice_of(l->out, len);
    int64_t until_ns = clock_mono_ns() + AHEAD_NS;
    uint8_t reply[MOUNT_AHEAD_REPLY];
    enum mount_ahead_state state;

    while ((state = mount_ahead_answer(a, request, now_ms, reply)) == MOUNT_AHEAD_ASKED &&
           clock_mono_ns() < until_ns) {
        if (receive(l, err) < 0)
            return -1;
        sched_yield();
    }
    if (state != MOUNT_AHEAD_KNOWN)
        return 0;
    stir(l);
    return give_kernel(l, slice_of(reply, sizeof(reply)), err) < 0 ? -1 : 1;
}

/* Behind the request in `out` goes what the kernel will ask next. */
static int ask_ahead(struct mount_lane *l, int64_t now_ms, struct error *err)
{
    uint8_t ask[MOUNT_AHEAD_ASK];
    size_t len = mount_ahead_note(&l->group->ahead, slice_of(l->out, l->out_len), ask);

    if (len == 0)
        return 0;
    memcpy(l->out + l->out_len, ask, len);
    l->out_len += len;
    return fuse_check_request(&l->check, slice_of(ask, len), now_ms, err);
}

/* Returns 0 when there was none, or another lane had it; 1 when there may be more; -1. */
static int take_request(struct mount_lane *l, int64_t now_ms, struct error *err)
{
    size_t len = 0;
    ssize_t n;
    int known;

    if (l->writes && l->out_pipe.read_fd >= 0)
        n = mount_pipe_take(&l->out_pipe, l->fuse_fd, l->out, &len);
    else
        len = (size_t)(n = read(l->fuse_fd, l->out, BUFFER_LEN));
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n < 0 && (errno == EINTR || errno == ENOENT))
        return 1; /* whoever asked was interrupted meanwhile */
    if (n < 0)
        return error_sys(err, errno, "reading a request of the kernel");
    known = fuse_check_known_error(slice_of(l->out, (size_t)n));
    if (known)
        return refuse_request(l, known, err) < 0 ? -1 : 1;
    known = answer_ahead(l, (size_t)n, now_ms, err);
    if (known == 0)
        known = fuse_check_request(&l->check, slice_of(l->out, len), now_ms, err);
    if (known < 0)
        mount_dead_refuse(l->fuse_fd, slice_of(l->out, (size_t)n));
    if (known)
        return known;
    l->writes = len >= MOUNT_SPLICE_MIN;
    l->swollen |= n > (ssize_t)CHUNK;
    l->out_len = (size_t)n;
    stir(l);
    if (ask_ahead(l, now_ms, err) < 0)
        return -1;
    return send_request(l, err) < 0 ? -1 : 1;
}

/* ---- the thread ---- */

/* Whole pages only, which a shrunken lane does not need. */
static void shrink(struct mount_lane *l)
{
    madvise(l->out + CHUNK, BUFFER_LEN - CHUNK, MADV_DONTNEED);
    madvise(l->in + CHUNK, BUFFER_LEN - CHUNK, MADV_DONTNEED);
    l->swollen = false;
}

static bool is_idle(const struct mount_lane *l)
{
    return l->check.count == 0 && l->out_len == 0;
}

static int wait_ms(const struct mount_lane *l)
{
    if (l->able && !is_able(l))
        return STUCK_MS;
    if (!is_idle(l))
        return TICK_MS;
    if (l->finishing && !l->done)
        return 0;
    return l->swollen ? SHRINK_MS : -1;
}

static int look_for_silence(struct mount_lane *l, int64_t now_ms, struct error *err)
{
    if (now_ms < l->next_look_ms)
        return 0;
    l->next_look_ms = now_ms + TICK_MS;
    return fuse_check_overdue(&l->check, now_ms, err) ? -1 : 0;
}

/* Not done from before it takes a request until it has found none. */
static void set_done(struct mount_lane *l, bool done)
{
    struct mount_lanes *g = l->group;

    if (l->done == done)
        return;
    l->done = done;
    if (!done)
        atomic_fetch_sub(&g->done, 1);
    else if (atomic_fetch_add(&g->done, 1) + 1 == atomic_load(&g->count))
        mount_lanes_abort(g);
}

/*
 * The kernel is asked, not epoll: that may have told another lane alone. Whatever a last reply lets
 * the kernel ask for is there when the reply has been given, so when all lanes are done there is
 * nothing left.
 */
static int look_for_the_end(struct mount_lane *l, int64_t now_ms, struct error *err)
{
    int rc = take_request(l, now_ms, err);

    if (rc == 0)
        set_done(l, true);
    return rc < 0 ? -1 : 0;
}

static int look_for_request(struct mount_lane *l, int64_t now_ms, struct error *err)
{
    int rc;

    set_done(l, false);
    if (!is_able(l))
        return 0;
    rc = take_request(l, now_ms, err);
    count_requests(l);
    if (!mount_turns_calm(&l->group->turns))
        l->calm = 0;
    else if (rc > 0 || !l->awake) /* taken, or woken in vain */
        l->calm++;
    return rc < 0 ? -1 : 0;
}

static int handle(struct mount_lane *l, const struct epoll_event *e, int64_t now_ms,
                  struct error *err)
{
    if (e->data.fd == l->fuse_fd) {
        return look_for_request(l, now_ms, err);
    }
    if (e->data.fd == mount_turns_call_fd(&l->group->turns, l->index)) {
        mount_turns_called(&l->group->turns, l->index);
        l->turn = mount_turns_has(&l->group->turns, l->index);
        return 0;
    }
    if (e->data.fd == l->group->cancel_fd)
        mount_lanes_abort(l->group);
    if (e->data.fd == l->group->finish_fd) {
        l->finishing = true;
        return watch(l, EPOLL_CTL_DEL, l->group->finish_fd, 0);
    }
    if (e->data.fd != l->socket)
        return 0;
    if ((e->events & EPOLLOUT) && send_request(l, err) < 0)
        return -1;
    return e->events & ~(uint32_t)EPOLLOUT ? receive(l, err) : 0;
}

static bool is_over(const struct mount_lane *l)
{
    return atomic_load(&l->group->over) || atomic_load(&l->group->dead);
}

/* Only one lane of a mount is awake without being woken: the others would take its processor. */
static bool keeps_awake(struct mount_lane *l)
{
    bool keeps = !l->finishing && clock_mono_ns() < l->awake_ns;

    if (keeps && !l->awake)
        l->awake = !atomic_flag_test_and_set(&l->group->awake);
    else if (!keeps && l->awake) {
        atomic_flag_clear(&l->group->awake);
        l->awake = false;
    }
    return keeps && l->awake;
}

/*
 * Without epoll, as long as one message follows the other closely. Whoever asked one thing waits
 * for the reply, as a rule, before asking another.
 */
static int look_around(struct mount_lane *l, struct error *err)
{
    bool asked = true;

    for (int i = 0; i < LOOKS && keeps_awake(l) && !is_over(l); i++) {
        int64_t awake_ns = l->awake_ns;

        if (l->out_len > 0 && send_request(l, err) < 0)
            return -1;
        if (l->turn && (asked || l->check.count == 0 || i % 4 == 0)) {
            size_t before = l->check.count;

            if (look_for_request(l, clock_mono_ms(), err) < 0)
                return -1;
            asked = l->check.count > before;
        }
        if (l->check.count > 0 && receive(l, err) < 0)
            return -1;
        count_requests(l);
        if (l->awake_ns == awake_ns)
            sched_yield();
    }
    return take_turn(l, clock_mono_ms(), err);
}

static int carry(struct mount_lane *l, struct error *err)
{
    struct epoll_event events[8];

    for (;;) {
        int n = epoll_wait(l->poll_fd, events, ARRAY_LEN(events), l->awake ? 0 : wait_ms(l));
        int64_t now_ms = clock_mono_ms();

        if (n < 0 && errno != EINTR)
            return error_sys(err, errno, "waiting for requests");
        if (is_over(l))
            return 0;
        if (n == 0 && l->swollen && is_idle(l) && !l->awake)
            shrink(l);
        for (int i = 0; i < n; i++)
            if (handle(l, &events[i], now_ms, err) < 0)
                return -1;
        count_requests(l);
        if (n == 0 && l->finishing && !l->done && is_idle(l) &&
            look_for_the_end(l, now_ms, err) < 0)
            return -1;
        if (look_for_silence(l, now_ms, err) < 0 || look_around(l, err) < 0)
            return -1;
    }
}

/* The host has no part in it any more, and whatever it still says is not read. */
static void answer_eio(struct mount_lane *l)
{
    const struct mount_lanes *g = l->group;
    const int until[] = {g->over_fd, g->finish_fd, g->cancel_fd};

    fd_close(&l->socket);
    fd_close(&l->poll_fd);
    mount_pipe_close(&l->out_pipe);
    mount_pipe_close(&l->in_pipe);
    munmap(l->in, BUFFER_LEN);
    l->in = NULL;
    mount_dead_refuse_asked(l->fuse_fd, &l->check);
    mount_dead_serve(l->fuse_fd, l->out, BUFFER_LEN, until, ARRAY_LEN(until));
}

/* The kernel counts on us as long as we hold its descriptor, so that goes first. */
static void *run(void *arg)
{
    struct mount_lane *l = arg;
    struct error err;

    /*
     * When memory runs out the kernel writes files back, through us: so our own calls shall not
     * wait for that, nor be slowed down with those who fill it. Where we may not say so
     * (CAP_SYS_RESOURCE), as in the sandbox, memory is the machine's.
     */
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
    if (carry(l, &err) < 0)
        mount_lanes_fail(l->group, &err);
    if (atomic_load(&l->group->dead))
        answer_eio(l);
    fd_close(&l->fuse_fd);
    fd_close(&l->socket);
    return NULL;
}

static uint8_t *map_buffer(void)
{
    void *p = mmap(NULL, BUFFER_LEN, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, 0, 0);

    return p == MAP_FAILED ? NULL : p;
}

static void release(struct mount_lane *l)
{
    if (l->out)
        munmap(l->out, BUFFER_LEN);
    if (l->in)
        munmap(l->in, BUFFER_LEN);
    mount_pipe_close(&l->out_pipe);
    mount_pipe_close(&l->in_pipe);
    fuse_check_free(&l->check);
    fd_close(&l->fuse_fd);
    fd_close(&l->socket);
    fd_close(&l->poll_fd);
    free(l);
}

/* A UNIX socket hands pages on. vsock would copy into new ones, which is no gain over our buffer.
 */
static bool is_unix(int socket)
{
    int domain = 0;
    socklen_t len = sizeof(domain);

    return getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

static int prepare(struct mount_lane *l, struct error *err)
{
    fuse_check_init(&l->check);
    mount_pipe_open(&l->out_pipe);
    l->in_pipe = (struct mount_pipe){.read_fd = -1, .write_fd = -1};
    if (is_unix(l->socket))
        mount_pipe_open(&l->in_pipe);
    l->out = map_buffer();
    l->in = map_buffer();
    l->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!l->out || !l->in || l->poll_fd < 0 || mount_turns_join(&l->group->turns, &l->index) < 0 ||
        watch(l, EPOLL_CTL_ADD, l->group->over_fd, EPOLLIN) < 0 ||
        watch(l, EPOLL_CTL_ADD, l->group->dead_fd, EPOLLIN) < 0 ||
        watch(l, EPOLL_CTL_ADD, l->group->finish_fd, EPOLLIN) < 0 ||
        watch(l, EPOLL_CTL_ADD, l->group->cancel_fd, EPOLLIN) < 0 ||
        watch(l, EPOLL_CTL_ADD, mount_turns_call_fd(&l->group->turns, l->index), EPOLLIN) < 0 ||
        watch(l, EPOLL_CTL_ADD, l->socket, EPOLLIN) < 0)
        return error_sys(err, errno, "preparing to carry requests");
    l->turn = mount_turns_has(&l->group->turns, l->index);
    l->able = true;
    return take_turn(l, clock_mono_ms(), err);
}

int mount_lane_start(struct mount_lanes *g, int fuse_fd, int socket, struct mount_lane **out,
                     struct error *err)
{
    struct mount_lane *l = xcalloc(1, sizeof(*l));
    int rc;

    l->group = g;
    l->fuse_fd = fuse_fd;
    l->socket = socket;
    l->poll_fd = -1;
    if (prepare(l, err) < 0) {
        release(l);
        return -1;
    }
    atomic_fetch_add(&g->count, 1);
    rc = pthread_create(&l->thread, NULL, run, l);
    if (rc != 0) {
        release(l);
        return error_sys(err, rc, "starting a thread");
    }
    *out = l;
    return 0;
}

void mount_lane_join(struct mount_lane *l)
{
    if (!l)
        return;
    pthread_join(l->thread, NULL);
    release(l);
}
