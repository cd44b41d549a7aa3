#include "launch/heartbeat.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "vsock/addr.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* After the socket headers: it uses their types. */
#include <linux/vm_sockets.h>

#define LOCK_PAUSE_MS 100

int heartbeat_listen_unix(struct heartbeat *h, const char *carrier_dir, struct error *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};

    snprintf(h->path, sizeof(h->path), "%s/v.sock_%u", carrier_dir, HEARTBEAT_PORT);
    memcpy(sa.sun_path, h->path, sizeof(sa.sun_path));
    h->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (h->listen_fd < 0 || bind(h->listen_fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        listen(h->listen_fd, HEARTBEAT_PEERS) < 0)
        return error_sys(err, errno, "listening for the heartbeat on %s", h->path);
    return 0;
}

/* A listening socket, or -1 with errno. */
static int listen_vsock(uint32_t port)
{
    struct sockaddr_vm sa = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 &&
        listen(fd, HEARTBEAT_PEERS) == 0)
        return fd;
    fd_close(&fd);
    return -1;
}

/* Listens on a port that is the whole machine's; others have it while they start an enclave. */
static int take_port(int *fd, uint32_t port, int wait_ms, bool (*keep_going)(void *arg), void *arg,
                     struct error *err)
{
    const int64_t deadline = clock_mono_ms() + wait_ms;
    bool told = false;

    for (;;) {
        *fd = listen_vsock(port);
        if (*fd >= 0)
            return 0;
        if (errno != EADDRINUSE)
            return error_sys(err, errno, "listening on vsock port %u", port);
        if (clock_mono_ms() >= deadline) {
            error_set(err, ERR_TIMEOUT,
                      "another enclave has been starting on this machine for %d s", wait_ms / 1000);
            return error_hint(err, "the program that listens on vsock port %u is starting it",
                              port);
        }
        if (!told)
            log_info("launcher", "waiting: another enclave is starting on this machine",
                     kv_uint("port", port), kv_int("at_most_secs", wait_ms / 1000));
        told = true;
        if (keep_going && !keep_going(arg))
            return error_set(err, ERR_INTERNAL, "stopped while waiting for another enclave");
        poll(NULL, 0, LOCK_PAUSE_MS);
    }
}

int heartbeat_lock_start(struct heartbeat *h, int lock_ms, bool (*keep_going)(void *arg), void *arg,
                         struct error *err)
{
    return take_port(&h->lock_fd, VSOCK_PORT_START_LOCK, lock_ms, keep_going, arg, err);
}

int heartbeat_listen_vsock(struct heartbeat *h, uint32_t cid, int lock_ms, int port_ms,
                           bool (*keep_going)(void *arg), void *arg, struct error *err)
{
    h->cid = cid;
    if (heartbeat_lock_start(h, lock_ms, keep_going, arg, err) < 0)
        return -1;
    return take_port(&h->listen_fd, HEARTBEAT_PORT, port_ms, keep_going, arg, err);
}

int64_t heartbeat_limit_ms(uint64_t secs)
{
    const char *given = getenv(HEARTBEAT_VARIABLE);
    uint64_t n;

    if (given && parse_u64(slice_str(given), 86400, &n) == 0 && n > 0)
        secs = n;
    return (int64_t)secs * 1000;
}

size_t heartbeat_poll_set(const struct heartbeat *h, struct pollfd *fds)
{
    fds[0] = (struct pollfd){.fd = h->listen_fd, .events = POLLIN};
    for (size_t i = 0; i < h->count; i++)
        fds[1 + i] = (struct pollfd){.fd = h->peers[i], .events = POLLIN};
    return 1 + h->count;
}

static void drop(struct heartbeat *h, size_t i)
{
    fd_close(&h->peers[i]);
    h->count--;
    memmove(&h->peers[i], &h->peers[i + 1], (h->count - i) * sizeof(h->peers[0]));
}

static bool is_ours(const struct heartbeat *h, const struct sockaddr_vm *peer, socklen_t len)
{
    return h->cid == 0 || (len >= sizeof(*peer) && peer->svm_cid == h->cid);
}

static void accept_all(struct heartbeat *h)
{
    for (;;) {
        struct sockaddr_vm peer = {0};
        socklen_t len = sizeof(peer);
        int fd =
            accept4(h->listen_fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0)
            return;
        if (!is_ours(h, &peer, len)) {
            log_debug("launcher", "a stranger on the heartbeat port was sent away",
                      kv_uint("cid", peer.svm_cid));
            fd_close(&fd);
            continue;
        }
        if (h->count == HEARTBEAT_PEERS)
            drop(h, 0);
        h->peers[h->count++] = fd;
    }
}

/* 1: a heartbeat, which was answered. 0: nothing said yet. -1: not one. */
static int listen_to(int fd)
{
    uint8_t byte;
    ssize_t n = recv(fd, &byte, 1, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n != 1 || byte != HEARTBEAT_BYTE)
        return -1;
    return send(fd, &byte, 1, MSG_NOSIGNAL) == 1 ? 1 : -1;
}

bool heartbeat_serve(struct heartbeat *h)
{
    accept_all(h);
    for (size_t i = 0; i < h->count;) {
        int rc = listen_to(h->peers[i]);

        if (rc > 0)
            return true;
        if (rc < 0)
            drop(h, i);
        else
            i++;
    }
    return false;
}

void heartbeat_close(struct heartbeat *h)
{
    while (h->count)
        drop(h, 0);
    fd_close(&h->listen_fd);
    fd_close(&h->lock_fd);
    if (h->path[0])
        unlink(h->path);
    *h = HEARTBEAT_NONE;
}
