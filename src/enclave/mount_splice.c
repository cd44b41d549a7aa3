#include "enclave/mount_splice.h"

#include "base/file.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>

#define WRITE_LEN (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

void mount_pipe_open(struct mount_pipe *p)
{
    int ends[2];

    *p = (struct mount_pipe){.read_fd = -1, .write_fd = -1};
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return;
    p->read_fd = ends[0];
    p->write_fd = ends[1];
    /* Twice the payload: a pipe has a power of two of pages, and headers need one, too. */
    for (p->payload_max = MOUNT_IO_MAX; p->payload_max >= MOUNT_IO_MAX / 2; p->payload_max /= 2)
        if (fcntl(p->write_fd, F_SETPIPE_SZ, (int)(2 * p->payload_max)) >= 0)
            return;
    mount_pipe_close(p);
}

void mount_pipe_close(struct mount_pipe *p)
{
    fd_close(&p->read_fd);
    fd_close(&p->write_fd);
    p->held = 0;
}

void mount_pipe_limit(const struct mount_pipe *p, struct fuse_init_out *init)
{
    size_t pages = p->payload_max / (size_t)sysconf(_SC_PAGESIZE);

    if (p->read_fd < 0)
        return;
    if (init->max_write > p->payload_max)
        init->max_write = (uint32_t)p->payload_max;
    if (init->max_pages > pages)
        init->max_pages = (uint16_t)pages;
}

/* Exactly `len` bytes, which are there. */
static bool get(struct mount_pipe *p, uint8_t *out, size_t len)
{
    while (len > 0) {
        ssize_t n = read(p->read_fd, out, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p->held -= (size_t)n;
        out += n;
        len -= (size_t)n;
    }
    return true;
}

ssize_t mount_pipe_take(struct mount_pipe *p, int fuse_fd, uint8_t *out, size_t *len)
{
    ssize_t n = splice(fuse_fd, NULL, p->write_fd, NULL, MOUNT_MESSAGE_MAX, SPLICE_F_NONBLOCK);
    struct fuse_in_header h;
    size_t got;

    if (n < 0 && errno == EINVAL) {
        mount_pipe_close(p);
        n = read(fuse_fd, out, MOUNT_MESSAGE_MAX);
        *len = n > 0 ? (size_t)n : 0;
        return n;
    }
    if (n <= 0)
        return n;
    *len = p->held = (size_t)n;
    got = *len < MOUNT_SPLICE_MIN ? *len : WRITE_LEN;
    if (!get(p, out, got))
        return -1;
    if (got == *len)
        return n;
    memcpy(&h, out, sizeof(h));
    if (h.opcode == FUSE_WRITE)
        return (ssize_t)got;
    return get(p, out + got, *len - got) ? n : -1;
}

ssize_t mount_pipe_send(struct mount_pipe *p, int socket)
{
    ssize_t n = splice(p->read_fd, NULL, socket, NULL, p->held, SPLICE_F_NONBLOCK);

    if (n > 0)
        p->held -= (size_t)n;
    return n;
}

bool mount_pipe_put(struct mount_pipe *p, const uint8_t *bytes, size_t len)
{
    ssize_t n = write(p->write_fd, bytes, len);

    if (n > 0)
        p->held += (size_t)n;
    return n == (ssize_t)len;
}

ssize_t mount_pipe_receive(struct mount_pipe *p, int socket, size_t len)
{
    ssize_t n = splice(socket, NULL, p->write_fd, NULL, len, SPLICE_F_NONBLOCK);

    if (n > 0)
        p->held += (size_t)n;
    return n;
}

ssize_t mount_pipe_reply(struct mount_pipe *p, int fuse_fd)
{
    ssize_t n = splice(p->read_fd, NULL, fuse_fd, NULL, p->held, 0);

    p->held = 0;
    return n;
}

bool mount_pipe_drain(struct mount_pipe *p, uint8_t *out)
{
    return get(p, out, p->held);
}
