#include "hostfs/lanes.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#define STACK      (256 * 1024)
#define PIPES      8 /* of MOUNT_IO_MAX: a user may have 64 MiB of them, and other things need some */
#define READ_AHEAD 16384 /* so that a small message costs one system call */

struct lane {
    struct lanes *lanes;
    pthread_mutex_t gate; /* held by the thread that reads, and until there is a descriptor */
    pthread_mutex_t sending;
    int fd; /* -1 until the lane is open */
    bool over;
    uint8_t ahead[READ_AHEAD] __attribute__((aligned(8)));
    size_t have, taken;
};

struct lanes {
    struct hostfs *fs;
    int end_fd;
    /* Desks that nobody uses, the last used first: its memory is still in the processor's cache. */
    pthread_mutex_t desk_lock;
    struct desk *free;
    pthread_barrier_t started;
    struct lane lane[LANES_MAX];
    int pipes[PIPES][2]; /* for the first desks */
    size_t pipes_given;
};

/* The memory of one request: its message, and room for what the answer holds. */
struct desk {
    struct lane *lane;
    uint8_t *message; /* MOUNT_MESSAGE_MAX bytes, aligned for any type */
    uint8_t *space;   /* MOUNT_IO_MAX bytes */
    int pipe[2];      /* -1: none */
    bool gone;        /* from the gate: another thread reads on */
    struct desk *next;
};

/* There are never more of them than threads. Pages that no request needs are never touched. */
static struct desk *take_desk(struct lane *l)
{
    static const int none[2] = {-1, -1};
    const int *pipe = none;
    struct desk *d;

    pthread_mutex_lock(&l->lanes->desk_lock);
    d = l->lanes->free;
    if (d)
        l->lanes->free = d->next;
    else
        pipe = l->lanes->pipes_given < PIPES ? l->lanes->pipes[l->lanes->pipes_given++] : none;
    pthread_mutex_unlock(&l->lanes->desk_lock);
    if (!d) {
        d = xcalloc(1, sizeof(*d));
        memcpy(d->pipe, pipe, sizeof(d->pipe));
        d->message = aligned_alloc(4096, (MOUNT_MESSAGE_MAX + 4095) & ~4095u);
        d->space = aligned_alloc(4096, MOUNT_IO_MAX);
        if (!d->message || !d->space)
            abort(); /* out of memory */
    }
    d->lane = l;
    return d;
}

static void give_desk(struct desk *d)
{
    struct lanes *lanes = d->lane->lanes;

    pthread_mutex_lock(&lanes->desk_lock);
    d->next = lanes->free;
    lanes->free = d;
    pthread_mutex_unlock(&lanes->desk_lock);
}

/* The mount is over as soon as one of its lanes is. */
static void end(const struct lane *lane)
{
    const uint8_t word = 0;

    if (write(lane->lanes->end_fd, &word, sizeof(word)) < 0)
        log_debug("hostfs", "the end of a lane could not be told",
                  kv_str("reason", strerror(errno)));
}

/* Fills the first `len` bytes of `to`. False when the lane ends or fails. */
static bool take(struct lane *l, uint8_t *to, size_t len)
{
    size_t n = l->have - l->taken;
    ssize_t got;

    n = n < len ? n : len;
    memcpy(to, l->ahead + l->taken, n);
    l->taken += n;
    for (to += n, len -= n; len > 0; to += got, len -= (size_t)got) {
        got = recv(l->fd, to, len, MSG_WAITALL);
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got <= 0)
            return false;
    }
    return true;
}

/* At least a message's head is in `ahead`. */
static bool look_ahead(struct lane *l)
{
    ssize_t got;

    if (l->have - l->taken < sizeof(struct fuse_in_header) && l->taken > 0) {
        memmove(l->ahead, l->ahead + l->taken, l->have - l->taken);
        l->have -= l->taken;
        l->taken = 0;
    }
    while (l->have - l->taken < sizeof(struct fuse_in_header)) {
        got = recv(l->fd, l->ahead + l->have, sizeof(l->ahead) - l->have, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        l->have += (size_t)got;
    }
    return true;
}

/* With the gate held: the next message of a lane; 0 at its end, which is told once. */
static size_t next_message(struct desk *d)
{
    struct lane *l = d->lane;
    uint32_t len = 0;
    bool good = false;

    if (!l->over && look_ahead(l)) {
        memcpy(&len, l->ahead + l->taken, sizeof(len));
        good = len >= sizeof(struct fuse_in_header) && len <= MOUNT_MESSAGE_MAX;
        if (!good)
            log_warn("hostfs", "the enclave sent a message of a length that none has",
                     kv_uint("length", len));
        good = good && take(l, d->message, len);
    }
    if (!good && !l->over) {
        l->over = true;
        end(l);
    }
    return good ? len : 0;
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
    const struct desk *d = arg;
    struct lane *l = d->lane;
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
    struct desk *d = arg;
    struct lane *l = d->lane;
    uint8_t copy[sizeof(struct fuse_out_header)];
    struct iovec part = {copy, header_len};
    ssize_t n;

    if (header_len > sizeof(copy))
        abort(); /* nobody has a longer one */
    memcpy(copy, header, header_len);
    pthread_mutex_lock(&l->sending);
    n = send_parts(l, &part, 1, MSG_MORE);
    for (; n >= 0 && len > 0; len -= (size_t)n) {
        n = splice(d->pipe[0], NULL, l->fd, NULL, len, 0);
        if (n < 0 && errno == EINTR)
            n = 0;
        else if (n == 0)
            n = -1;
    }
    pthread_mutex_unlock(&l->sending);
    if (n >= 0)
        return 0;
    shutdown(l->fd, SHUT_RDWR);
    fd_close(&d->pipe[0]); /* something is left in it */
    fd_close(&d->pipe[1]);
    return -1;
}

static void leave_gate(void *arg)
{
    struct desk *d = arg;

    if (!d->gone)
        pthread_mutex_unlock(&d->lane->gate);
    d->gone = true;
}

/*
 * What may take as long as a disk does is answered while another thread reads on. The rest is over
 * before such a thread would be awake; so are reads of what the machine has in memory (files.c).
 */
static bool is_slow(const uint8_t *message)
{
    const struct fuse_in_header *head = (const void *)message;
    const struct fuse_setattr_in *attr = (const void *)(message + sizeof(*head));

    switch (head->opcode) {
    case FUSE_WRITE:
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

static void *work(void *arg)
{
    struct lane *l = arg;
    struct desk *d;
    size_t len;

    pthread_barrier_wait(&l->lanes->started);
    pthread_mutex_lock(&l->gate);
    d = take_desk(l);
    while ((len = next_message(d)) > 0) {
        struct hostfs_request request = {.send = send_answer,
                                         .send_piped = send_piped,
                                         .may_wait = leave_gate,
                                         .arg = d,
                                         .pipe = {d->pipe[0], d->pipe[1]},
                                         .space = d->space};

        if (is_slow(d->message))
            leave_gate(d);
        hostfs_answer(l->lanes->fs, d->message, len, &request);
        if (d->gone) {
            d->gone = false;
            give_desk(d);
            pthread_mutex_lock(&l->gate);
            d = take_desk(l);
        }
    }
    pthread_mutex_unlock(&l->gate);
    give_desk(d);
    return NULL;
}

static int start_thread(struct lane *l, const pthread_attr_t *attr, struct error *err)
{
    pthread_t thread;
    int sys = pthread_create(&thread, attr, work, l);

    return sys ? error_sys(err, sys, "starting a thread of a host mount's server") : 0;
}

/* Without them contents are copied. */
static void make_pipes(struct lanes *lanes)
{
    for (size_t i = 0; i < PIPES; i++) {
        int *ends = lanes->pipes[i];

        if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
            ends[0] = ends[1] = -1;
        } else if (fcntl(ends[1], F_SETPIPE_SZ, MOUNT_IO_MAX) < 0) {
            fd_close(&ends[0]);
            fd_close(&ends[1]);
        }
    }
}

int lanes_start(struct hostfs *fs, int end_fd, struct lanes **out, struct error *err)
{
    struct lanes *lanes = xcalloc(1, sizeof(*lanes));
    pthread_attr_t attr;
    int rc = 0;

    lanes->fs = fs;
    lanes->end_fd = end_fd;
    *out = lanes;
    make_pipes(lanes);
    pthread_mutex_init(&lanes->desk_lock, NULL);
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

void lanes_open(struct lanes *lanes, uint32_t index, int fd)
{
    struct lane *l = &lanes->lane[index];
    int flags = fcntl(fd, F_GETFL);

    fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    l->fd = fd;
    pthread_mutex_unlock(&l->gate);
}
