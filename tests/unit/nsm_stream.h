/* A blocking server of the soft NSM's stream form, for tests of the client. */
#ifndef CAPSULE_TESTS_NSM_STREAM_H
#define CAPSULE_TESTS_NSM_STREAM_H

#include "base/file.h"
#include "nsm/soft.h"

#include <errno.h>
#include <sys/socket.h>

/* 1 when a length came, 0 when the peer closed between two requests. */
static int read_length(int fd, uint32_t *out, struct error *err)
{
    uint8_t head[4];
    ssize_t n;

    do
        n = recv(fd, head, 1, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? 0 : error_sys(err, errno, "soft NSM connection");
    if (n == 0)
        return 0;
    if (fd_read_full(fd, head + 1, 3, "soft NSM connection", err) < 0)
        return -1;
    *out = get_be32(head);
    return 1;
}

static int write_answer(int fd, const struct buf *answer, struct error *err)
{
    AUTO_BUF struct buf message = BUF_SECRET(4 + NSM_ANSWER_MAX);
    uint8_t head[4];
    struct slice left;

    put_be32(head, (uint32_t)answer->len);
    if (buf_append(&message, head, sizeof(head)) < 0 ||
        buf_append(&message, answer->ptr, answer->len) < 0)
        return error_set(err, ERR_INTERNAL, "no room for an answer of the soft NSM");
    left = buf_slice(&message);
    while (left.len > 0) {
        ssize_t n = send(fd, left.ptr, left.len, MSG_NOSIGNAL);

        if (n < 0 && errno != EINTR)
            return error_sys(err, errno, "soft NSM connection");
        if (n > 0) {
            left.ptr += n;
            left.len -= (size_t)n;
        }
    }
    return 0;
}

/* Serves one connection until the peer closes it. */
static inline int soft_nsm_serve(struct soft_nsm *soft, int fd, struct error *err)
{
    uint8_t request[NSM_REQUEST_MAX];
    uint32_t len = 0;
    int more;

    while ((more = read_length(fd, &len, err)) > 0) {
        AUTO_BUF struct buf answer = BUF_SECRET(NSM_ANSWER_MAX);

        if (len == 0 || len > NSM_REQUEST_MAX) {
            soft_nsm_refuse_length(len, &answer);
            return write_answer(fd, &answer, err);
        }
        if (fd_read_full(fd, request, len, "soft NSM connection", err) < 0)
            return -1;
        soft_nsm_answer(soft, slice_of(request, len), &answer);
        if (write_answer(fd, &answer, err) < 0)
            return -1;
    }
    return more;
}

#endif
