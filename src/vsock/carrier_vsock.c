#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "vsock/carrier_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

/* After the socket headers: it uses their types. AF_VSOCK is described in vsock(7). */
#include <linux/vm_sockets.h>

#define BACKLOG  1024
#define GUESS_MS 500 /* for the first of two possible hosts to answer */
/* The kernel's default of 256 KiB keeps a fast stream waiting for credit. */
#define BUFFER_BYTES (1024u * 1024)

static int vsock_open(struct carrier *c, struct error *err)
{
    AUTO_FD int dev = -1;
    unsigned cid;
    uint32_t port;

    if (c->side == CARRIER_HOST || c->cid != 0)
        return 0;
    dev = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
    if (dev < 0)
        return error_sys(err, errno, "opening /dev/vsock");
    if (ioctl(dev, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) < 0)
        return error_sys(err, errno, "reading this machine's CID from /dev/vsock");
    if (vsock_host_port(cid, 0, &port, err) < 0)
        return error_wrap(err, "this machine is not an enclave");
    c->cid = cid;
    return 0;
}

static void vsock_close(struct carrier *c)
{
    (void)c;
}

static void tune(int fd, int connect_ms)
{
    const struct timeval limit = clock_timeval(connect_ms);
    const uint64_t bytes = BUFFER_BYTES;

    /* Old kernels do not know the options; the connection then works with the defaults. */
    (void)setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &limit, sizeof(limit));
    (void)setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &bytes, sizeof(bytes));
    (void)setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &bytes, sizeof(bytes));
}

static bool is_guess(const struct carrier *c, const struct attempt *a)
{
    return c->side == CARRIER_ENCLAVE && a->host_cid == VSOCK_CID_PARENT &&
           atomic_load(&c->host_cid) == 0;
}

/*
 * The enclave's first try goes to CID 3, the documented address of a Nitro parent. Where nothing
 * has that address the try is refused at once, or what was sent is dropped, as QEMU's hosts do;
 * then CID 2 is tried. What worked is remembered.
 */
static bool try_other_host(const struct carrier *c, struct attempt *a, int sys)
{
    if (!is_guess(c, a) || sys == EMFILE || sys == ENFILE)
        return false;
    fd_close(&a->fd);
    a->stage = ATTEMPT_START;
    a->host_cid = VSOCK_CID_HOST;
    return true;
}

static enum attempt_want connected(const struct carrier *c, struct attempt *a)
{
    if (c->side == CARRIER_ENCLAVE)
        /* Only a cache of the address: the carrier is otherwise not changed by a dial. */
        atomic_store(&((struct carrier *)(uintptr_t)c)->host_cid, a->host_cid);
    return ATTEMPT_DONE;
}

static enum attempt_want vsock_advance(const struct carrier *c, struct attempt *a,
                                       struct error *err)
{
    struct sockaddr_vm sa = {.svm_family = AF_VSOCK, .svm_port = a->port};
    int sys = 0;
    socklen_t len = sizeof(sys);

    if (a->stage == ATTEMPT_CONNECTING) {
        if (getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &sys, &len) < 0)
            sys = errno;
        if (sys == 0)
            return connected(c, a);
        if (!try_other_host(c, a, sys)) {
            error_sys(err, sys, "connecting to vsock port %u", a->port);
            return ATTEMPT_FAILED;
        }
    }
    for (;;) {
        if (a->host_cid == 0) {
            a->host_cid = atomic_load(&c->host_cid);
            if (a->host_cid == 0)
                a->host_cid = VSOCK_CID_PARENT;
        }
        sa.svm_cid = c->side == CARRIER_HOST ? c->cid : a->host_cid;
        a->fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (a->fd < 0) {
            error_sys(err, errno, "opening a vsock socket");
            return ATTEMPT_FAILED;
        }
        tune(a->fd, is_guess(c, a) ? GUESS_MS : CARRIER_CONNECT_MS);
        if (connect(a->fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
            return connected(c, a);
        sys = errno;
        if (sys == EINPROGRESS) {
            a->stage = ATTEMPT_CONNECTING;
            return ATTEMPT_WRITE;
        }
        if (!try_other_host(c, a, sys)) {
            error_sys(err, sys, "connecting to vsock port %u", a->port);
            return ATTEMPT_FAILED;
        }
    }
}

/* Every vsock listener on the instance can be reached by every enclave and local process. */
static bool from_enclave(const void *arg, const struct sockaddr *peer, socklen_t len)
{
    const struct carrier *c = arg;
    struct sockaddr_vm sa;

    if (len < sizeof(sa))
        return false;
    memcpy(&sa, peer, sizeof(sa));
    return sa.svm_family == AF_VSOCK && sa.svm_cid == c->cid;
}

/* In the enclave only its parent may knock; a process of the enclave itself may not. */
static bool from_host(const void *arg, const struct sockaddr *peer, socklen_t len)
{
    struct sockaddr_vm sa;

    (void)arg;
    if (len < sizeof(sa))
        return false;
    memcpy(&sa, peer, sizeof(sa));
    return sa.svm_family == AF_VSOCK &&
           (sa.svm_cid == VSOCK_CID_PARENT || sa.svm_cid == VSOCK_CID_HOST);
}

static int vsock_listen(struct carrier *c, uint32_t port, struct listener_spec *spec,
                        struct listener **out, struct error *err)
{
    struct sockaddr_vm sa = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    AUTO_FD int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return error_sys(err, errno, "opening a vsock socket");
    tune(fd, CARRIER_CONNECT_MS);
    if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, BACKLOG) < 0)
        return error_sys(err, errno, "listening on vsock port %u", port);
    spec->admit = c->side == CARRIER_HOST ? from_enclave : from_host;
    spec->admit_arg = c;
    *out = listener_new(c->base, fd, spec);
    fd = -1;
    return 0;
}

static void vsock_unlisten(struct carrier *c, struct listener *l)
{
    (void)c;
    listener_free(l);
}

const struct carrier_ops carrier_vsock_ops = {
    .open = vsock_open,
    .close = vsock_close,
    .advance = vsock_advance,
    .listen = vsock_listen,
    .unlisten = vsock_unlisten,
};
