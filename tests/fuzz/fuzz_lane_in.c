/*
 * The stream of bytes that a hostile enclave sends on a lane, cut into requests. The input is a row
 * of records: a kind and a size (2 bytes), and for RAW that many bytes of the stream. WHOLE stands
 * for a good request of that many bytes, LONG for a WRITE of sixteen times as many, PIECES for the
 * number of bytes that go at once from there on. What comes out must be what went in.
 */
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "hostfs/lane_in.h"
#include "vsock/mountproto.h"

#include <linux/fuse.h>
#include <linux/sockios.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum kind {
    RAW,
    WHOLE,
    LONG,
    PIECES,
    KINDS
};

#define STREAM_MAX (4u << 20)
#define SENDS_MAX  20000 /* so that a run is short */
#define ALONE_MAX  200   /* pieces that are waited for */

static struct desks desks;
static atomic_flag awake;

struct stream {
    int fd;
    uint8_t *bytes;
    size_t len;
    /* From `at` on `piece` bytes go at once. */
    struct {
        size_t at, piece;
    } turn[64];
    size_t turns;
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_setup(LOG_ERROR, LOG_TEXT);
    signal(SIGPIPE, SIG_IGN);
    desks_init(&desks);
    return 0;
}

static void add_message(struct stream *s, uint32_t opcode, size_t len)
{
    struct fuse_in_header head = {.len = (uint32_t)len, .opcode = opcode, .unique = s->len};
    uint8_t *to = s->bytes + s->len;

    if (len < sizeof(head) || len > STREAM_MAX - s->len)
        return;
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(i * 7 + s->len);
    memcpy(to, &head, sizeof(head));
    s->len += len;
}

static void compose(struct stream *s, const uint8_t *data, size_t size)
{
    while (size >= 3) {
        size_t n = data[1] | (size_t)data[2] << 8;
        enum kind kind = data[0] % KINDS;

        data += 3;
        size -= 3;
        if (kind == WHOLE) {
            add_message(s, FUSE_LOOKUP, n);
        } else if (kind == LONG) {
            add_message(s, FUSE_WRITE, 16 * n);
        } else if (kind == PIECES && s->turns < ARRAY_LEN(s->turn)) {
            s->turn[s->turns].at = s->len;
            s->turn[s->turns++].piece = n;
        } else if (kind == RAW) {
            n = n < size ? n : size;
            n = n < STREAM_MAX - s->len ? n : 0;
            memcpy(s->bytes + s->len, data, n);
            s->len += n;
            data += n;
            size -= n;
        }
    }
}

/* Until all that was sent has been received, so that what follows is not received with it. */
static void await_receipt(int fd)
{
    int queued;

    while (ioctl(fd, SIOCOUTQ, &queued) == 0 && queued > 0)
        sched_yield();
}

static void *send_stream(void *arg)
{
    struct stream *s = arg;
    size_t at = 0, turn = 0, piece = STREAM_MAX, sends = 0;

    while (at < s->len) {
        size_t end = s->len;
        ssize_t n;

        for (; turn < s->turns && s->turn[turn].at <= at; turn++)
            piece = s->turn[turn].piece ? s->turn[turn].piece : STREAM_MAX;
        if (turn < s->turns && s->turn[turn].at < end)
            end = s->turn[turn].at;
        if (sends++ > SENDS_MAX)
            piece = STREAM_MAX;
        n = send(s->fd, s->bytes + at, end - at < piece ? end - at : piece, MSG_NOSIGNAL);
        if (n < 0)
            break; /* it was not taken to its end */
        at += (size_t)n;
        if (sends < ALONE_MAX)
            await_receipt(s->fd);
    }
    shutdown(s->fd, SHUT_WR);
    return NULL;
}

static void compare(const struct stream *s, const struct lane_message *m, struct desk *desk,
                    size_t at)
{
    size_t here = m->len - m->piped;

    if (m->len < sizeof(struct fuse_in_header) || m->len > MOUNT_MESSAGE_MAX ||
        m->len > s->len - at || m->piped > m->len ||
        memcmp(desk->message, s->bytes + at, here) != 0)
        abort();
    if (m->piped == 0)
        return;
    if (fd_read_full(desk->pipe[0], desk->space, m->piped, "pipe", NULL) < 0 ||
        memcmp(desk->space, s->bytes + at + here, m->piped) != 0)
        abort();
}

/* The end comes at the first length that no request has, or with the last bytes. */
static void check_end(const struct stream *s, size_t at)
{
    uint32_t len;

    if (s->len - at < sizeof(struct fuse_in_header))
        return;
    memcpy(&len, s->bytes + at, sizeof(len));
    if (len >= sizeof(struct fuse_in_header) && len <= MOUNT_MESSAGE_MAX && len <= s->len - at)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stream s = {.bytes = xmalloc(STREAM_MAX)};
    struct lane_in *in = xcalloc(1, sizeof(*in));
    struct lane_message m;
    struct desk *desk = desk_take(&desks);
    pthread_t sender;
    size_t at = 0;
    int ends[2];

    compose(&s, data, size);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        abort();
    s.fd = ends[1];
    lane_in_open(in, ends[0], size % 2 == 0, &awake);
    if (pthread_create(&sender, NULL, send_stream, &s) != 0)
        abort();
    while ((m = lane_in_next(in, desk)).len > 0) {
        compare(&s, &m, desk, at);
        at += m.len;
    }
    check_end(&s, at);
    close(ends[0]);
    pthread_join(sender, NULL);
    close(ends[1]);
    desk_give(&desks, desk);
    free(in);
    free(s.bytes);
    return 0;
}
