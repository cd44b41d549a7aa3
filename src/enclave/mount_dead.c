#include "enclave/mount_dead.h"

#include "enclave/fuse_reply.h"
#include "enclave/mount_fuse.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What is longer than this leaves pages behind that are worth giving back. */
#define LONG_LEN (64u * 1024)

void mount_dead_answer(int fuse_fd, uint64_t unique)
{
    (void)mount_fuse_refuse(fuse_fd, unique, EIO); /* else the kernel has given up the mount */
}

void mount_dead_refuse(int fuse_fd, struct slice request)
{
    struct fuse_in_header h;

    if (request.len < sizeof(h))
        return;
    memcpy(&h, request.ptr, sizeof(h));
    if (fuse_reply_expected(h.opcode))
        mount_dead_answer(fuse_fd, h.unique);
}

void mount_dead_refuse_asked(int fuse_fd, const struct fuse_check *asked)
{
    size_t at = 0;
    uint64_t unique;

    while (fuse_check_next(asked, &at, &unique))
        mount_dead_answer(fuse_fd, unique);
}

/* Returns 1 when there may be more, 0 when there is none, -1 when there will be none. */
static int refuse_one(int fuse_fd, uint8_t *buffer, size_t len, bool *was_long)
{
    ssize_t n = read(fuse_fd, buffer, len);

    if (n < 0)
        return errno == EAGAIN ? 0 : errno == EINTR || errno == ENOENT ? 1 : -1;
    *was_long |= (size_t)n > LONG_LEN;
    mount_dead_refuse(fuse_fd, slice_of(buffer, (size_t)n));
    return 1;
}

/* False when it is over. */
static bool wait_for_more(int fuse_fd, const int *until, size_t count)
{
    struct pollfd p[1 + MOUNT_DEAD_UNTIL_MAX] = {{.fd = fuse_fd, .events = POLLIN}};

    for (size_t i = 0; i < count; i++)
        p[1 + i] = (struct pollfd){.fd = until[i], .events = POLLIN};
    if (poll(p, (nfds_t)(1 + count), -1) < 0)
        return errno == EINTR;
    for (size_t i = 0; i < count; i++)
        if (p[1 + i].revents)
            return false;
    return true;
}

void mount_dead_serve(int fuse_fd, uint8_t *buffer, size_t len, const int *until, size_t count)
{
    bool was_long = true; /* whatever the buffer was used for before */

    /* The end comes first: programs that go on asking shall not put it off. */
    while (wait_for_more(fuse_fd, until, count)) {
        int rc = refuse_one(fuse_fd, buffer, len, &was_long);

        if (rc < 0)
            return;
        if (rc == 0 && was_long) {
            madvise(buffer, len, MADV_DONTNEED);
            was_long = false;
        }
    }
}
