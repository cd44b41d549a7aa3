#include "enclave/mount_link.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/slice.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <sys/random.h>
#include <sys/socket.h>

#define ERRNO_MAX 4095

static int greet(const struct mount_link *l, uint32_t lane, int fd, struct error *err)
{
    struct mount_hello hello = {0};

    memcpy(hello.magic, MOUNT_MAGIC, sizeof(hello.magic));
    memcpy(hello.session, l->session, sizeof(hello.session));
    put_le32((uint8_t *)&hello + offsetof(struct mount_hello, lane), lane);
    memcpy(hello.name, l->name, strnlen(l->name, sizeof(hello.name)));
    /* A new connection takes so little at once. */
    if (send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello))
        return error_sys(err, errno, "greeting the host");
    return 0;
}

static int await(const struct mount_link *l, int fd, int64_t deadline_ms, struct error *err)
{
    struct pollfd p[] = {{.fd = fd, .events = POLLIN}, {.fd = l->cancel_fd, .events = POLLIN}};
    int64_t left = deadline_ms - clock_mono_ms();
    int n = poll(p, ARRAY_LEN(p), left > 0 ? (int)left : 0);

    if (n < 0 && errno != EINTR)
        return error_sys(err, errno, "waiting for the host");
    if (p[1].revents)
        return error_set(err, ERR_INTERNAL, "stopped before the host answered");
    if (n == 0)
        return error_set(err, ERR_TIMEOUT, "the host did not answer the greeting");
    return 0;
}

static int hear(const struct mount_link *l, int fd, uint8_t *answer, size_t len, struct error *err)
{
    int64_t deadline_ms = clock_mono_ms() + CARRIER_HANDSHAKE_MS;
    size_t have = 0;

    while (have < len) {
        ssize_t n;

        if (await(l, fd, deadline_ms, err) < 0)
            return -1;
        n = recv(fd, answer + have, len - have, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n < 0)
            return error_sys(err, errno, "reading the host's answer to the greeting");
        if (n == 0)
            return error_set(err, ERR_NET, "the host closed the connection at the greeting");
        have += (size_t)n;
    }
    return 0;
}

static int understand(const uint8_t *answer, struct mount_offer *offer, struct error *err)
{
    struct reader r = reader_of(slice_of(answer, sizeof(struct mount_welcome)));
    uint32_t sys, flags, lanes;
    struct slice magic;

    if (!reader_take(&r, sizeof(((struct mount_welcome *)0)->magic), &magic) ||
        !slice_equal_str(magic, MOUNT_MAGIC) || !reader_le32(&r, &sys) ||
        !reader_le32(&r, &flags) || !reader_le32(&r, &lanes))
        return error_set(err, ERR_NET, "the host's answer to the greeting is not one");
    if (sys > ERRNO_MAX)
        return error_set(err, ERR_NET, "the host refuses with error number %u", sys);
    if (sys != 0)
        return error_sys(err, (int)sys, "the host refuses");
    if (lanes < 1 || lanes > MOUNT_LANES_MAX)
        return error_set(err, ERR_NET, "the host offers %u lanes", lanes);
    if (offer)
        *offer = (struct mount_offer){.lanes = lanes, .read_only = flags & MOUNT_READ_ONLY};
    return 0;
}

int mount_link_open(struct mount_link *l, uint32_t lane, struct mount_offer *offer,
                    struct error *err)
{
    uint8_t answer[sizeof(struct mount_welcome)];
    AUTO_FD int fd = -1;
    uint32_t port;
    int out;

    if (lane == 0 && getrandom(l->session, sizeof(l->session), 0) != sizeof(l->session))
        return error_sys(err, errno, "drawing random bytes");
    if (vsock_mount_port(carrier_cid(l->carrier), l->index, &port, err) < 0)
        return -1;
    fd = carrier_dial_wait(l->carrier, port, CARRIER_CONNECT_MS, err);
    if (fd < 0)
        return error_hint(err, "does the host offer the mount? capsule-cli run --mount %s=DIR",
                          l->name);
    if (greet(l, lane, fd, err) < 0 || hear(l, fd, answer, sizeof(answer), err) < 0 ||
        understand(answer, offer, err) < 0)
        return -1;
    out = fd;
    fd = -1;
    return out;
}
