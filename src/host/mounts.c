#include "host/mounts.h"

#include "base/file.h"
#include "base/proc.h"
#include "vsock/mountproto.h"
#include "vsock/status.h"

#include <errno.h>
#include <event2/event.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define CONNECTIONS_MAX 16
#define READY_MS        10000 /* for a process to confine itself */
#define STOP_MS         60000 /* for it to make its files durable */

/* One served mount. */
struct server {
    struct event_base *base;
    struct carrier *carrier;
    const struct mount_place *place;
    char *name; /* "mount NAME" */
    struct listener *listener;
    struct proc proc;
    int control; /* accepted connections go there; its end is the process's end */
    struct event *ended;
};

struct host_mounts {
    struct server *servers;
    size_t count;
};

/* So that a whole answer fits. Only root may pass the system's limit, and vsock has its own way. */
static void widen(int fd)
{
    const int room = 2 * MOUNT_MESSAGE_MAX;

    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
}

/* A UNIX socket hands pages on, vsock copies. */
static bool is_unix(int fd)
{
    int domain = 0;
    socklen_t len = sizeof(domain);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

/* Hands a connection to the process; the descriptor here is closed in any case. */
static void on_accept(void *arg, int fd)
{
    struct server *s = arg;
    union {
        struct cmsghdr head;
        uint8_t space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    uint8_t word = is_unix(fd) ? MOUNT_LANE_SPLICES : 0;
    struct iovec iov = {&word, sizeof(word)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};

    widen(fd);
    control.head = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(fd)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
    if (sendmsg(s->control, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_warn("mounts", "a connection could not be handed on",
                 kv_str("mount", s->place->mount->name), kv_str("reason", strerror(errno)));
    fd_close(&fd);
    listener_done(s->listener);
}

static void unlisten(struct server *s)
{
    if (s->listener)
        carrier_unlisten(s->carrier, s->listener);
    s->listener = NULL;
}

static void say_end(const struct server *s, int status)
{
    const char *name = s->place->mount->name;
    char signal_name[16];

    if (WIFSIGNALED(status)) {
        status_signal_name(WTERMSIG(status), signal_name);
        log_error("mounts",
                  "the server of a host mount was killed: the app gets errors there from now on",
                  kv_str("mount", name), kv_str("signal", signal_name));
    } else if (WEXITSTATUS(status) != 0) {
        log_error("mounts",
                  "the server of a host mount failed: the app gets errors there from now on",
                  kv_str("mount", name), kv_int("status", WEXITSTATUS(status)));
    } else {
        log_debug("mounts", "a host mount has ended", kv_str("mount", name));
    }
}

static void on_end(evutil_socket_t fd, short what, void *arg)
{
    struct server *s = arg;
    struct error err;
    int status = 0;

    (void)fd;
    (void)what;
    if (proc_wait(&s->proc, 0, &status, &err) != 1)
        return;
    event_del(s->ended);
    unlisten(s);
    say_end(s, status);
}

/* The first word of the process: that it serves, or why not. */
static int await_ready(struct server *s, struct error *err)
{
    struct pollfd p = {.fd = s->control, .events = POLLIN};
    struct error said = {.kind = ERR_NONE};
    int n;

    do
        n = poll(&p, 1, READY_MS);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return error_set(err, ERR_TIMEOUT, "the server of host mount %s is not ready after %d s",
                         s->place->mount->name, READY_MS / 1000);
    if (recv(s->control, &said, sizeof(said), MSG_DONTWAIT) != (ssize_t)sizeof(said))
        return error_set(err, ERR_INTERNAL, "the server of host mount %s ended at once",
                         s->place->mount->name);
    if (said.kind == ERR_NONE)
        return 0;
    *err = said;
    return error_wrap(err, "host mount %s", s->place->mount->name);
}

static int start_process(struct server *s, const struct host_mounts_config *config,
                         struct error *err)
{
    char level[4], format[4], dir[12], control[12];
    const char *const argv[] = {config->program,
                                config->word,
                                s->place->mount->name,
                                s->place->read_only ? "ro" : "rw",
                                level,
                                format,
                                dir,
                                control,
                                NULL};
    const char *const env[] = {NULL}; /* what it does not know, it cannot give away */
    struct proc_spec spec = {.argv = argv,
                             .env = env,
                             .stdin_fd = -1,
                             .stdout_fd = -1,
                             .stderr_fd = STDERR_FILENO,
                             .die_with_parent = true,
                             .new_session = true};
    int pair[2], keep[2], rc;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_sys(err, errno, "making a socket for host mount %s", s->place->mount->name);
    s->control = pair[0];
    keep[0] = s->place->fd < pair[1] ? s->place->fd : pair[1];
    keep[1] = s->place->fd < pair[1] ? pair[1] : s->place->fd;
    spec.keep_fds = keep;
    spec.keep_count = ARRAY_LEN(keep);
    snprintf(level, sizeof(level), "%d", (int)config->log_level);
    snprintf(format, sizeof(format), "%d", (int)config->log_format);
    snprintf(dir, sizeof(dir), "%d", s->place->fd);
    snprintf(control, sizeof(control), "%d", pair[1]);
    rc = proc_start(&spec, &s->proc, err);
    fd_close(&pair[1]);
    return rc < 0 ? error_wrap(err, "host mount %s", s->place->mount->name) : 0;
}

static int start_server(struct server *s, const struct host_mounts_config *config,
                        struct error *err)
{
    struct listener_spec spec = {
        .name = s->name, .max = CONNECTIONS_MAX, .accepted = on_accept, .arg = s};
    uint32_t port;

    if (start_process(s, config, err) < 0 || await_ready(s, err) < 0)
        return -1;
    s->ended = event_new(s->base, s->proc.pidfd, EV_READ | EV_PERSIST, on_end, s);
    if (!s->ended)
        abort(); /* out of memory */
    event_add(s->ended, NULL);
    if (vsock_mount_port(carrier_cid(s->carrier), s->place->index, &port, err) < 0 ||
        carrier_listen(s->carrier, port, &spec, &s->listener, err) < 0)
        return error_wrap(err, "host mount %s", s->place->mount->name);
    log_info("mounts", "serving", kv_str("mount", s->place->mount->name),
             kv_str("directory", s->place->path),
             kv_str("mode", s->place->read_only ? "ro" : "rw"));
    return 0;
}

int host_mounts_start(struct event_base *base, const struct host_mounts_config *config,
                      struct host_mounts **out, struct error *err)
{
    struct host_mounts *m = xcalloc(1, sizeof(*m));

    m->servers = xcalloc(config->places->count, sizeof(*m->servers));
    for (size_t i = 0; i < config->places->count; i++) {
        const struct mount_place *place = &config->places->items[i];

        m->servers[m->count++] = (struct server){.base = base,
                                                 .carrier = config->carrier,
                                                 .place = place,
                                                 .name = xasprintf("mount %s", place->mount->name),
                                                 .proc = PROC_NONE,
                                                 .control = -1};
        if (start_server(&m->servers[i], config, err) < 0) {
            host_mounts_stop(m);
            return -1;
        }
    }
    *out = m;
    return 0;
}

/* The end of the control socket tells the process; it syncs and ends. */
static void stop_server(struct server *s)
{
    struct error err;
    int status = 0, rc;

    unlisten(s);
    fd_close(&s->control);
    if (s->ended)
        event_free(s->ended);
    if (s->proc.pid) {
        rc = proc_wait(&s->proc, STOP_MS, &status, &err);
        if (rc == 1)
            say_end(s, status);
        else
            log_error("mounts",
                      "the server of a host mount does not end: what the app wrote last "
                      "may not be on disk",
                      kv_str("mount", s->place->mount->name));
        proc_kill(&s->proc);
    }
    free(s->name);
}

void host_mounts_stop(struct host_mounts *m)
{
    if (!m)
        return;
    for (size_t i = m->count; i-- > 0;)
        stop_server(&m->servers[i]);
    free(m->servers);
    free(m);
}
