#include "hostfs/lanes.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "hostfs/desk.h"
#include "hostfs/lane_in.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STACK (256 * 1024)
/* A write that took so long waited for the disk, and others will for some time. */
#define WAITED_NS   INT64_C(20000000)
#define WAITS_NS    INT64_C(200000000)
#define WRITERS_MAX 4 /* that wait at once; more would only wait for each other */

struct lane {
    struct lanes *lanes;
    pthread_mutex_t gate; /* held by the thread that reads, and until there is a descriptor */
    pthread_mutex_t sending;
    int fd; /* -1 until the lane is open */
    bool over;
    struct lane_in in;
};

struct lanes {
    struct hostfs *fs;
    int end_fd;
    struct desks desks;
    atomic_flag awake;           /* of lane_in.h */
    atomic_llong writes_wait_ns; /* until then writes may wait for the disk */
    atomic_int writers;
    pthread_barrier_t started;
    struct lane lane[LANES_MAX];
};

/* A thread, its lane and its request. */
struct worker {
    struct lane *lane;
    struct desk *desk;
    bool gone; /* from the gate: another thread reads on */
};

/* The mount is over as soon as one of its lanes is. */
static void end(const struct lane *lane)
{
    const uint8_t word = 0;

    if (write(lane->lanes->end_fd, &word, sizeof(word)) < 0)
        log_debug("hostfs", "the end of a lane could not be told",
                  kv_str("reason", strerror(errno)));
}

/* With the gate held: the next message of a lane; none at its end, which is told once. */
static struct lane_message next_message(const struct worker *w)
{
    struct lane *l = w->lane;
    struct lane_message m = {0};

    if (!l->over)
        m = lane_in_next(&l->in, w->desk);
    if (m.len == 0 && !l->over) {
        l->over = true;
        end(l);
    }
    return m;
}

/* With `sending` held. */
static ssize_t send_parts(const struct lane *l, struct iovec *part, size_t count, int flags)
{
    struct msghdr msg = {.msg_iov = part, .msg_iovlen = count};
    ssize_t n = 0;

    while (msg.msg_iovlen > 0) {
        n = sendmsg(l->fd, &msg, MSG_NOSIGNAL | flags);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        for (; msg.msg_iovlen > 0 && (size_t)n >= msg.msg_iov->iov_len; msg.msg_iovlen--)
            n -= (ssize_t)msg.msg_iov++->iov_len;
        if (msg.msg_iovlen > 0) {
            msg.msg_iov->iov_base = (uint8_t *)msg.msg_iov->iov_base + n;
            msg.msg_iov->iov_len -= (size_t)n;
        }
    }
    return n;
}

static int send_answer(void *arg, const struct iovec *iov, int count)
{
    const struct worker *w = arg;
    struct lane *l = w->lane;
    struct iovec part[8];
    ssize_t n;

    if ((size_t)count > ARRAY_LEN(part))
        abort(); /* libfuse has three at most */
    memcpy(part, iov, (size_t)count * sizeof(*iov));
    pthread_mutex_lock(&l->sending);
    n = send_parts(l, part, (size_t)count, 0);
    pthread_mutex_unlock(&l->sending);
    if (n < 0)
        shutdown(l->fd, SHUT_RDWR); /* the reader sees it as the lane's end */
    return n < 0 ? -1 : 0;
}

static int send_piped(void *arg, const void *header, size_t header_len, size_t len)
{
    const struct worker *w = arg;
    struct lane *l = w->lane;
    uint8_t copy[sizeof(struct fuse_out_header)];
    struct iovec part = {copy, header_len};
    ssize_t n;

    if (header_len > sizeof(copy))
        abort(); /* nobody has a longer one */
    memcpy(copy, header, header_len);
    pthread_mutex_lock(&l->sending);
    n = send_parts(l, &part, 1, MSG_MORE);
    for (; n >= 0 && len > 0; len -= (size_t)n) {
        n = splice(w->desk->pipe[0], NULL, l->fd, NULL, len, 0);
        if (n < 0 && errno == EINTR)
            n = 0;
        else if (n == 0)
            n = -1;
    }
    pthread_mutex_unlock(&l->sending);
    if (n >= 0)
        return 0;
    shutdown(l->fd, SHUT_RDWR);
    desk_close_pipe(w->desk);
    return -1;
}

static void leave_gate(void *arg)
{
    struct worker *w = arg;

    if (!w->gone)
        pthread_mutex_unlock(&w->lane->gate);
    w->gone = true;
}

/*
 * What may take as long as a disk does is answered while another thread reads on. The rest is over
 * before such a thread would be awake; so are reads of what the machine has in memory (files.c),
 * and writes as long as they do not have to wait: of those to one file only one is at work anyway.
 */
static bool is_slow(struct lanes *lanes, const uint8_t *message)
{
    const struct fuse_in_header *head = (const void *)message;
    const struct fuse_setattr_in *attr = (const void *)(message + sizeof(*head));

    switch (head->opcode) {
    case FUSE_WRITE:
        return clock_mono_ns() < atomic_load(&lanes->writes_wait_ns) &&
               atomic_load(&lanes->writers) <= WRITERS_MAX;
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
    case FUSE_FALLOCATE:
    case FUSE_COPY_FILE_RANGE:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
        return true;
    case FUSE_SETATTR:
        return head->len >= sizeof(*head) + sizeof(*attr) && (attr->valid & FATTR_SIZE);
    default:
        return false;
    }
}

static void end_write(struct lanes *lanes, int64_t begin_ns)
{
    int64_t now_ns = clock_mono_ns();

    atomic_fetch_sub(&lanes->writers, 1);
    if (now_ns - begin_ns > WAITED_NS)
        atomic_store(&lanes->writes_wait_ns, now_ns + WAITS_NS);
}

static void answer(struct worker *w, const struct lane_message *m)
{
    struct lanes *lanes = w->lane->lanes;
    struct desk *d = w->desk;
    const struct fuse_in_header *head = (const void *)d->message;
    struct hostfs_request request = {.send = send_answer,
                                     .send_piped = send_piped,
                                     .may_wait = leave_gate,
                                     .arg = w,
                                     .pipe = {d->pipe[0], d->pipe[1]},
                                     .piped = m->piped,
                                     .space = d->space};
    bool writes = head->opcode == FUSE_WRITE;
    int64_t begin_ns = writes ? clock_mono_ns() : 0;

    if (writes)
        atomic_fetch_add(&lanes->writers, 1);
    if (is_slow(lanes, d->message))
        leave_gate(w);
    hostfs_answer(lanes->fs, d->message, m->len, &request);
    if (writes)
        end_write(lanes, begin_ns);
}

static void *work(void *arg)
{
    struct lane *l = arg;
    struct worker w = {.lane = l};
    struct lane_message m;

    pthread_barrier_wait(&l->lanes->started);
    pthread_mutex_lock(&l->gate);
    w.desk = desk_take(&l->lanes->desks);
    while ((m = next_message(&w)).len > 0) {
        answer(&w, &m);
        if (w.gone) {
            w.gone = false;
            desk_give(&l->lanes->desks, w.desk);
            pthread_mutex_lock(&l->gate);
            w.desk = desk_take(&l->lanes->desks);
        }
    }
    pthread_mutex_unlock(&l->gate);
    desk_give(&l->lanes->desks, w.desk);
    return NULL;
}

static int start_thread(struct lane *l, const pthread_attr_t *attr, struct error *err)
{
    pthread_t thread;
    int sys = pthread_create(&thread, attr, work, l);

    return sys ? error_sys(err, sys, "starting a thread of a host mount's server") : 0;
}

int lanes_start(struct hostfs *fs, int end_fd, struct lanes **out, struct error *err)
{
    struct lanes *lanes = xcalloc(1, sizeof(*lanes));
    pthread_attr_t attr;
    int rc = 0;

    lanes->fs = fs;
    lanes->end_fd = end_fd;
    *out = lanes;
    desks_init(&lanes->desks);
    pthread_barrier_init(&lanes->started, NULL, LANES_MAX * LANE_THREADS + 1);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK);
    for (size_t i = 0; i < LANES_MAX && rc == 0; i++) {
        struct lane *l = &lanes->lane[i];

        l->lanes = lanes;
        l->fd = -1;
        pthread_mutex_init(&l->gate, NULL);
        pthread_mutex_init(&l->sending, NULL);
        pthread_mutex_lock(&l->gate);
        for (int n = 0; n < LANE_THREADS && rc == 0; n++)
            rc = start_thread(l, &attr, err);
    }
    pthread_attr_destroy(&attr);
    if (rc == 0)
        pthread_barrier_wait(&lanes->started); /* what a new thread calls, the filter forbids */
    return rc;
}

bool lanes_has(const struct lanes *lanes, uint32_t index)
{
    return lanes->lane[index].fd >= 0;
}

void lanes_open(struct lanes *lanes, uint32_t index, int fd, bool splices)
{
    struct lane *l = &lanes->lane[index];
    int flags = fcntl(fd, F_GETFL);

    fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    l->fd = fd;
    lane_in_open(&l->in, fd, splices, &l->lanes->awake);
    pthread_mutex_unlock(&l->gate);
}
