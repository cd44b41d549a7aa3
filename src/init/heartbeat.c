#include "init/heartbeat.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* After sys/socket.h: this header needs sa_family_t. */
#include <linux/vm_sockets.h>

#define HEARTBEAT_PORT    9000
#define HEARTBEAT_BYTE    0xb7
#define PARENT_CID        3 /* of an enclave; the kernel's header has no name for it */
#define CONNECT_BUDGET_MS 30000
#define HEAD_START_MS     50
#define PAUSE_MS          50
#define ANSWER_MS         30000

/* One connect() on its way: fd is -1 when there is none, or when it has failed with `error`. */
struct attempt {
    unsigned cid;
    int fd;
    int error;
};

/* The failures that mean "not yet", or "not this CID". */
static bool is_transient(int error)
{
    return error == ECONNRESET || error == ETIMEDOUT || error == ENODEV || error == ENETUNREACH ||
           error == EHOSTUNREACH;
}

static void attempt_fail(struct attempt *a, int error)
{
    fd_close(&a->fd);
    a->error = error;
}

static void attempt_start(struct attempt *a)
{
    struct sockaddr_vm addr = {
        .svm_family = AF_VSOCK, .svm_cid = a->cid, .svm_port = HEARTBEAT_PORT};

    a->error = 0;
    a->fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (a->fd < 0)
        a->error = errno;
    else if (connect(a->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 && errno != EINPROGRESS)
        attempt_fail(a, errno);
}

/* Waits for any of the attempts. Returns the one that is connected, or NULL. */
static struct attempt *attempts_poll(struct attempt *a, size_t count, int timeout_ms)
{
    struct pollfd fds[2];

    for (size_t i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = a[i].fd, .events = POLLOUT};
    if (poll(fds, count, timeout_ms) <= 0)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        int error = 0;
        socklen_t len = sizeof(error);

        if (fds[i].fd < 0 || fds[i].revents == 0)
            continue;
        if (getsockopt(a[i].fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
            error = errno;
        if (error == 0)
            return &a[i];
        attempt_fail(&a[i], error);
    }
    return NULL;
}

/*
 * One try of both CIDs. A host may drop what is sent to the CID it does not have instead of
 * refusing it, which costs the kernel's two seconds; so CID 2 follows when CID 3 has failed or has
 * not answered within its head start, and the first connection wins. An enclave's parent answers
 * at once, and nothing there is CID 2.
 */
static struct attempt *connect_once(struct attempt a[2], int64_t deadline)
{
    struct attempt *won;

    attempt_start(&a[0]);
    won = a[0].fd < 0 ? NULL : attempts_poll(a, 1, HEAD_START_MS);
    if (won == NULL) {
        attempt_start(&a[1]);
        while (won == NULL && (a[0].fd >= 0 || a[1].fd >= 0)) {
            int64_t left = deadline - clock_mono_ms();

            if (left <= 0)
                break;
            won = attempts_poll(a, 2, (int)left);
        }
    }
    for (size_t i = 0; i < 2; i++)
        if (&a[i] != won && a[i].fd >= 0)
            attempt_fail(&a[i], ETIMEDOUT);
    return won;
}

static int connect_parent(unsigned *cid, struct error *err)
{
    int64_t deadline = clock_mono_ms() + CONNECT_BUDGET_MS;
    struct attempt a[2] = {{PARENT_CID, -1, 0}, {VMADDR_CID_HOST, -1, 0}};

    for (;;) {
        struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000L};
        const struct attempt *won = connect_once(a, deadline);

        if (won) {
            *cid = won->cid;
            return won->fd;
        }
        if (!is_transient(a[0].error))
            return error_sys(err, a[0].error, "connecting to CID %d port %d", PARENT_CID,
                             HEARTBEAT_PORT);
        if (clock_mono_ms() >= deadline)
            break;
        nanosleep(&pause, NULL);
    }
    error_sys(err, a[0].error, "nobody answers on port %d of CID %d or %d within %d s",
              HEARTBEAT_PORT, PARENT_CID, VMADDR_CID_HOST, CONNECT_BUDGET_MS / 1000);
    if (a[0].error == ENODEV)
        return error_hint(err, "the machine has no vsock device that this kernel knows");
    return -1;
}

int heartbeat_exchange(int fd, int timeout_ms, struct error *err)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    uint8_t byte = HEARTBEAT_BYTE;

    if (fd_write_all(fd, &byte, 1, "the launcher", err) < 0)
        return -1;
    if (poll(&readable, 1, timeout_ms) == 0)
        return error_set(err, ERR_TIMEOUT, "the launcher sent no answer within %d ms", timeout_ms);
    if (fd_read_full(fd, &byte, 1, "the launcher's answer", err) < 0)
        return -1;
    if (byte != HEARTBEAT_BYTE)
        return error_set(err, ERR_NET, "the launcher answered 0x%02x instead of 0x%02x", byte,
                         HEARTBEAT_BYTE);
    return 0;
}

int heartbeat_send(unsigned *cid, struct error *err)
{
    AUTO_FD int fd = connect_parent(cid, err);

    return fd < 0 ? -1 : heartbeat_exchange(fd, ANSWER_MS, err);
}
