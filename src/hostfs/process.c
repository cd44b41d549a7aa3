#include "hostfs/process.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"
#include "hostfs/confine.h"
#include "hostfs/filter.h"
#include "hostfs/lanes.h"
#include "vsock/mountproto.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#define HELLO_MS      5000
#define LOCK_MS       5000
#define LOCK_PAUSE_MS 20
#define WAITING_MAX   8 /* connections whose hello is not complete */
#define ARENAS        4 /* of malloc(); there is little to allocate */

/* A connection that has yet to say what it is. */
struct caller {
    int fd;
    bool splices; /* contents may be spliced from it */
    int64_t deadline_ms;
    size_t got;
    struct mount_hello hello;
};

struct server {
    const char *name;
    bool read_only;
    int lock; /* the directory's, as long as we live */
    int control;
    int end_fd; /* readable when a lane has ended */
    struct lanes *lanes;
    struct caller waiting[WAITING_MAX];
    size_t waiting_count;
    uint8_t session[MOUNT_SESSION_LEN]; /* of lane 0 */
    struct log_rate refused;
};

static uint32_t judge_hello(const struct server *s, const struct mount_hello *h)
{
    uint32_t lane = le32toh(h->lane);

    if (memcmp(h->magic, MOUNT_MAGIC, sizeof(h->magic)) != 0 || h->reserved != 0)
        return EPROTO;
    if (strncmp(h->name, s->name, sizeof(h->name)) != 0)
        return ENOENT;
    if (lane >= LANES_MAX)
        return EINVAL;
    if (lanes_has(s->lanes, lane))
        return EBUSY;
    if (lane > 0 &&
        (!lanes_has(s->lanes, 0) || memcmp(h->session, s->session, sizeof(s->session)) != 0))
        return EINVAL;
    return 0;
}

/* Answers a whole hello; the connection becomes a lane or is closed. */
static void welcome(struct server *s, const struct caller *c)
{
    uint32_t error = judge_hello(s, &c->hello), lane = le32toh(c->hello.lane);
    struct mount_welcome w = {.error = htole32(error),
                              .flags = htole32(s->read_only ? MOUNT_READ_ONLY : 0),
                              .lanes = htole32(LANES_MAX)};
    uint64_t swallowed;
    int fd = c->fd;

    memcpy(w.magic, MOUNT_MAGIC, sizeof(w.magic));
    if (send(fd, &w, sizeof(w), MSG_NOSIGNAL) != (ssize_t)sizeof(w) || error) {
        if (log_rate_allow(&s->refused, &swallowed))
            log_warn("hostfs", "a connection to a host mount was refused", kv_str("mount", s->name),
                     kv_str("reason", error ? strerror((int)error) : "it does not read"),
                     kv_uint("swallowed", swallowed));
        fd_close(&fd);
        return;
    }
    if (lane == 0)
        memcpy(s->session, c->hello.session, sizeof(s->session));
    log_debug("hostfs", "lane open", kv_str("mount", s->name), kv_uint("lane", lane));
    lanes_open(s->lanes, lane, fd, c->splices);
}

/* Reads what is there of a hello. True when the caller is dealt with. */
static bool hear(struct server *s, struct caller *c)
{
    ssize_t n = recv(c->fd, (uint8_t *)&c->hello + c->got, sizeof(c->hello) - c->got, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        fd_close(&c->fd);
        return true;
    }
    c->got += (size_t)n;
    if (c->got < sizeof(c->hello))
        return false;
    welcome(s, c);
    return true;
}

static void drop_caller(struct server *s, size_t index)
{
    s->waiting[index] = s->waiting[--s->waiting_count];
}

/* Takes a connection that the shell accepted. False when the shell is gone. */
static bool take_connection(struct server *s)
{
    union {
        struct cmsghdr head;
        uint8_t space[CMSG_SPACE(sizeof(int))];
    } control;
    uint8_t word;
    struct iovec iov = {&word, sizeof(word)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(s->control, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    const struct cmsghdr *c;
    int fd = -1;

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    if (fd >= 0 && s->waiting_count < WAITING_MAX)
        s->waiting[s->waiting_count++] = (struct caller){.fd = fd,
                                                         .splices = word & MOUNT_LANE_SPLICES,
                                                         .deadline_ms = clock_mono_ms() + HELLO_MS};
    else
        fd_close(&fd);
    return true;
}

/* Until the enclave ends the mount, or the shell is gone. */
static void serve(struct server *s)
{
    for (;;) {
        struct pollfd polled[2 + WAITING_MAX] = {{.fd = s->control, .events = POLLIN},
                                                 {.fd = s->end_fd, .events = POLLIN}};
        int64_t now = clock_mono_ms();
        int timeout = -1;

        for (size_t i = 0; i < s->waiting_count; i++) {
            int64_t left = s->waiting[i].deadline_ms - now;

            polled[2 + i] = (struct pollfd){.fd = s->waiting[i].fd, .events = POLLIN};
            left = left < 0 ? 0 : left;
            timeout = timeout < 0 || left < timeout ? (int)left : timeout;
        }
        if (poll(polled, (nfds_t)(2 + s->waiting_count), timeout) < 0 && errno != EINTR)
            return;
        if (polled[1].revents)
            return;
        now = clock_mono_ms();
        for (size_t i = s->waiting_count; i-- > 0;) {
            if (polled[2 + i].revents && hear(s, &s->waiting[i])) {
                drop_caller(s, i);
            } else if (s->waiting[i].deadline_ms <= now) {
                fd_close(&s->waiting[i].fd);
                drop_caller(s, i);
            }
        }
        if (polled[0].revents && !take_connection(s))
            return;
    }
}

/*
 * So that no two enclaves change one directory, which each has in its cache. This holds across
 * containers, too. A server that was killed may take a while to be gone. Opened from within: no
 * descriptor of ours may lead out.
 */
static int lock_dir(struct server *s, int root_fd, struct error *err)
{
    int64_t deadline = clock_mono_ms() + LOCK_MS;

    s->lock = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->lock < 0)
        return error_sys(err, errno, "opening the directory");
    while (flock(s->lock, (s->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            break; /* a file system without locks */
        if (clock_mono_ms() >= deadline) {
            error_set(err, ERR_EXISTS, "the directory is served to another enclave");
            return error_hint(err, "wait for the end of that run, or stop it; with :ro several "
                                   "can have it");
        }
        poll(NULL, 0, LOCK_PAUSE_MS);
    }
    return 0;
}

/* A container's usual state is told once; the better one needs no line. */
static void say_way(const struct server *s, enum confined_way way)
{
    if (way == CONFINED_LANDLOCK)
        log_info("hostfs",
                 "no mounts may be made here, so the server is shut in by chroot and Landlock",
                 kv_str("mount", s->name));
    else if (way == CONFINED_CHROOT)
        log_warn("hostfs",
                 "no mounts may be made here and the kernel has no Landlock (Linux 5.19), so the "
                 "server is shut in by chroot alone: what an enclave that takes it over can reach "
                 "is this container",
                 kv_str("mount", s->name));
}

static int set_up(struct server *s, int dir_fd, struct hostfs **fs, struct error *err)
{
    struct hostfs_config config = {.read_only = s->read_only};
    struct confined confined;
    int ends[2];

    mallopt(M_ARENA_MAX, ARENAS);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_sys(err, errno, "making a pipe");
    s->end_fd = ends[0];
    if (confine_enter(dir_fd, s->read_only, &confined, err) < 0)
        return -1;
    close(dir_fd);
    if (lock_dir(s, confined.root_fd, err) < 0)
        return -1;
    say_way(s, confined.way);
    config.root_fd = confined.root_fd;
    config.set_owner = confined.set_owner;
    config.files_max = confined.files_max;
    *fs = hostfs_new(&config, err);
    if (!*fs || lanes_start(*fs, ends[1], &s->lanes, err) < 0)
        return -1;
    return filter_install(err);
}

static bool parse_number(const char *text, int *out)
{
    uint64_t value;

    if (parse_u64(slice_str(text), 1 << 20, &value) < 0)
        return false;
    *out = (int)value;
    return true;
}

int hostfs_process(int argc, char **argv)
{
    static struct server server;
    struct error err = {.kind = ERR_NONE};
    struct hostfs *fs = NULL;
    int level, format, dir_fd;

    if (argc != 7 || !parse_number(argv[3], &level) || !parse_number(argv[4], &format) ||
        !parse_number(argv[5], &dir_fd) || !parse_number(argv[6], &server.control)) {
        fputs("capsule-shell: " HOSTFS_PROCESS_WORD " is for capsule-shell's own use\n", stderr);
        return 2;
    }
    log_setup((enum log_level)level, (enum log_format)format);
    prctl(PR_SET_NAME, "capsule-hostfs");
    server.refused.burst = 10;
    server.name = argv[1];
    server.read_only = strcmp(argv[2], "ro") == 0;
    /* An error that cannot be told shows as our end. */
    if (set_up(&server, dir_fd, &fs, &err) < 0) {
        (void)!send(server.control, &err, sizeof(err), MSG_NOSIGNAL);
        return 1;
    }
    if (send(server.control, &err, sizeof(err), MSG_NOSIGNAL) < 0)
        return 1;
    serve(&server);
    if (hostfs_sync(fs, &err) < 0) {
        error_wrap(&err, "host mount %s", server.name);
        log_error("hostfs", err.msg);
        _exit(1);
    }
    _exit(0); /* there may be threads at work yet, which what exit() cleans up must not hit */
}
