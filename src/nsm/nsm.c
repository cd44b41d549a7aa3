#include "nsm/nsm.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define EMPTY_ANSWERS_MAX 128

/* How one request gets to a module and its answer back. */
struct backend {
    /* `answer` is empty and takes NSM_ANSWER_MAX bytes. */
    int (*exchange)(struct nsm *nsm, struct slice request, struct buf *answer, struct error *err);
};

struct nsm {
    const struct backend *backend;
    pthread_mutex_t lock;
    pthread_cond_t turn_over;
    bool busy;              /* it is somebody's turn */
    unsigned short_waiting; /* short calls that wait for theirs */
    int fd;                 /* -1: a stream that is not connected */
    int (*dial)(void *arg, struct error *err);
    void *dial_arg;
    int timeout_ms;
};

/* ---- device ---- */

/* struct nsm_raw of linux/nsm.h; two iovecs of a 64-bit kernel. */
struct device_message {
    uint64_t request_addr;
    uint64_t request_len;
    uint64_t answer_addr;
    uint64_t answer_len;
};
#define DEVICE_IOCTL _IOWR(0x0A, 0, struct device_message)
_Static_assert(DEVICE_IOCTL == 0xC0200A00, "the number in linux/nsm.h");

static int device_exchange(struct nsm *nsm, struct slice request, struct buf *answer,
                           struct error *err)
{
    uint8_t *space = buf_reserve(answer, NSM_ANSWER_MAX);
    struct device_message message = {(uintptr_t)request.ptr, request.len, (uintptr_t)space,
                                     NSM_ANSWER_MAX};

    if (!space)
        return error_set(err, ERR_INTERNAL, "no room for the NSM's answer");
    if (ioctl(nsm->fd, DEVICE_IOCTL, &message) < 0) {
        int sys = errno;

        error_sys(err, sys, "the NSM device refused the request");
        if (err)
            err->kind = sys == EMSGSIZE ? ERR_LIMIT : ERR_INTERNAL;
        return -1;
    }
    /* The driver cuts what does not fit; it never writes more than the capacity. */
    if (message.answer_len > NSM_ANSWER_MAX)
        return error_set(err, ERR_INTERNAL, "the NSM device reports an impossible length");
    answer->len += message.answer_len;
    return 0;
}

static const struct backend device_backend = {device_exchange};

/* ---- stream ---- */

static int wait_for(int fd, short events, int64_t deadline, struct error *err)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (;;) {
        int64_t left = deadline - clock_mono_ms();
        int ready = left > 0 ? poll(&p, 1, (int)left) : 0;

        if (ready > 0)
            return 0;
        if (ready == 0)
            return error_set(err, ERR_TIMEOUT, "the soft NSM does not answer");
        if (errno != EINTR)
            return error_sys(err, errno, "soft NSM");
    }
}

static int send_all(int fd, struct slice bytes, int64_t deadline, struct error *err)
{
    while (bytes.len > 0) {
        ssize_t n = send(fd, bytes.ptr, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n >= 0) {
            bytes.ptr += n;
            bytes.len -= (size_t)n;
        } else if (errno == EAGAIN) {
            if (wait_for(fd, POLLOUT, deadline, err) < 0)
                return -1;
        } else if (errno != EINTR) {
            return error_sys(err, errno, "sending to the soft NSM");
        }
    }
    return 0;
}

static int recv_all(int fd, uint8_t *out, size_t len, int64_t deadline, struct error *err)
{
    while (len > 0) {
        ssize_t n = recv(fd, out, len, MSG_DONTWAIT);

        if (n > 0) {
            out += n;
            len -= (size_t)n;
        } else if (n == 0) {
            return error_set(err, ERR_NET, "the soft NSM closed the connection");
        } else if (errno == EAGAIN) {
            if (wait_for(fd, POLLIN, deadline, err) < 0)
                return -1;
        } else if (errno != EINTR) {
            return error_sys(err, errno, "reading from the soft NSM");
        }
    }
    return 0;
}

static int stream_talk(int fd, struct slice request, struct buf *answer, int64_t deadline,
                       struct error *err)
{
    AUTO_BUF struct buf message = BUF(4 + NSM_REQUEST_MAX);
    uint8_t head[4], *space;
    uint32_t len;

    put_be32(head, (uint32_t)request.len);
    if (buf_append(&message, head, sizeof(head)) < 0 ||
        buf_append(&message, request.ptr, request.len) < 0)
        return error_set(err, ERR_LIMIT, "the request is longer than %d bytes", NSM_REQUEST_MAX);
    if (send_all(fd, buf_slice(&message), deadline, err) < 0 ||
        recv_all(fd, head, sizeof(head), deadline, err) < 0)
        return -1;
    len = get_be32(head);
    if (len == 0 || len > NSM_ANSWER_MAX || !(space = buf_reserve(answer, len)))
        return error_set(err, ERR_NET, "the soft NSM announces an answer of %u bytes", len);
    if (recv_all(fd, space, len, deadline, err) < 0)
        return -1;
    answer->len += len;
    return 0;
}

/* Nothing is under way, so whatever there is to read is the peer's end, or belongs to no request.
 */
static bool is_stale(int fd)
{
    uint8_t byte;

    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

static int stream_exchange(struct nsm *nsm, struct slice request, struct buf *answer,
                           struct error *err)
{
    int64_t deadline = clock_mono_ms() + nsm->timeout_ms;

    if (nsm->fd >= 0 && is_stale(nsm->fd))
        fd_close(&nsm->fd);
    if (nsm->fd < 0) {
        nsm->fd = nsm->dial(nsm->dial_arg, err);
        if (nsm->fd < 0)
            return error_wrap(err, "connecting to the soft NSM");
    }
    if (stream_talk(nsm->fd, request, answer, deadline, err) == 0)
        return 0;
    fd_close(&nsm->fd); /* what is still under way would be taken for the next answer */
    return -1;
}

static const struct backend stream_backend = {stream_exchange};

/* ---- opening ---- */

static struct nsm *new_nsm(const struct backend *backend, int fd)
{
    struct nsm *nsm = xcalloc(1, sizeof(*nsm));

    nsm->backend = backend;
    nsm->fd = fd;
    pthread_mutex_init(&nsm->lock, NULL);
    pthread_cond_init(&nsm->turn_over, NULL);
    return nsm;
}

struct nsm *nsm_open_device(const char *path, struct error *err)
{
    const char *name = path ? path : NSM_DEVICE;
    int fd = open(name, O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        error_sys(err, errno, "%s", name);
        return NULL;
    }
    return new_nsm(&device_backend, fd);
}

struct nsm *nsm_open_stream(int (*dial)(void *arg, struct error *err), void *arg, int timeout_ms)
{
    struct nsm *nsm = new_nsm(&stream_backend, -1);

    nsm->dial = dial;
    nsm->dial_arg = arg;
    nsm->timeout_ms = timeout_ms;
    return nsm;
}

void nsm_close(struct nsm *nsm)
{
    if (!nsm)
        return;
    fd_close(&nsm->fd);
    pthread_cond_destroy(&nsm->turn_over);
    pthread_mutex_destroy(&nsm->lock);
    free(nsm);
}

/* ---- operations ---- */

static int report(const struct nsm_answer *answer, struct error *err)
{
    static const enum error_kind kinds[] = {
        [NSM_INVALID_ARGUMENT] = ERR_INVALID,   [NSM_INVALID_INDEX] = ERR_NOT_FOUND,
        [NSM_INVALID_RESPONSE] = ERR_INTERNAL,  [NSM_READ_ONLY_INDEX] = ERR_DENIED,
        [NSM_INVALID_OPERATION] = ERR_INTERNAL, [NSM_BUFFER_TOO_SMALL] = ERR_INTERNAL,
        [NSM_INPUT_TOO_LARGE] = ERR_LIMIT,      [NSM_INTERNAL_ERROR] = ERR_INTERNAL,
    };
    int shown = answer->error.len < 128 ? (int)answer->error.len : 128;

    return error_set(err, kinds[answer->status], "the NSM answers %s with \"%.*s\"",
                     nsm_op_name(answer->op), shown, (const char *)answer->error.ptr);
}

/*
 * The module answers one request at a time, so callers take turns. Short calls go first: many of
 * them fit into the time of one attestation, and a mutex alone is fair to nobody.
 */
static void take_turn(struct nsm *nsm, bool is_short)
{
    pthread_mutex_lock(&nsm->lock);
    nsm->short_waiting += is_short;
    while (nsm->busy || (!is_short && nsm->short_waiting))
        pthread_cond_wait(&nsm->turn_over, &nsm->lock);
    nsm->short_waiting -= is_short;
    nsm->busy = true;
    pthread_mutex_unlock(&nsm->lock);
}

static void end_turn(struct nsm *nsm)
{
    pthread_mutex_lock(&nsm->lock);
    nsm->busy = false;
    pthread_cond_broadcast(&nsm->turn_over);
    pthread_mutex_unlock(&nsm->lock);
}

/* One round trip, in the caller's turn. *answer points into *bytes, which the caller frees. */
static int exchange(struct nsm *nsm, const struct nsm_request *request, struct buf *bytes,
                    struct nsm_answer *answer, struct error *err)
{
    AUTO_BUF struct buf out = BUF_SECRET(NSM_REQUEST_MAX);

    *bytes = BUF_SECRET(NSM_ANSWER_MAX);
    if (nsm_request_encode(request, &out, err) < 0 ||
        nsm->backend->exchange(nsm, buf_slice(&out), bytes, err) < 0)
        return -1;
    if (nsm_answer_decode(buf_slice(bytes), request->op, answer, err) < 0) {
        if (err)
            err->kind = ERR_INTERNAL;
        return -1;
    }
    return answer->status == NSM_OK ? 0 : report(answer, err);
}

static int call(struct nsm *nsm, const struct nsm_request *request, struct buf *bytes,
                struct nsm_answer *answer, struct error *err)
{
    int ret;

    take_turn(nsm, false);
    ret = exchange(nsm, request, bytes, answer, err);
    end_turn(nsm);
    return ret;
}

int nsm_describe(struct nsm *nsm, struct nsm_description *out, struct error *err)
{
    const struct nsm_request request = {.op = NSM_DESCRIBE_NSM};
    AUTO_BUF struct buf bytes = {0};
    struct nsm_answer answer;

    if (call(nsm, &request, &bytes, &answer, err) < 0)
        return -1;
    *out = answer.description;
    return 0;
}

int nsm_describe_pcr(struct nsm *nsm, uint16_t index, bool *locked, uint8_t *value,
                     struct error *err)
{
    const struct nsm_request request = {.op = NSM_DESCRIBE_PCR, .index = index};
    AUTO_BUF struct buf bytes = {0};
    struct nsm_answer answer;

    if (call(nsm, &request, &bytes, &answer, err) < 0)
        return -1;
    *locked = answer.locked;
    memcpy(value, answer.bytes.ptr, NSM_PCR_LEN);
    return 0;
}

int nsm_extend_pcr(struct nsm *nsm, uint16_t index, struct slice data, uint8_t *value,
                   struct error *err)
{
    const struct nsm_request request = {.op = NSM_EXTEND_PCR, .index = index, .data = data};
    AUTO_BUF struct buf bytes = {0};
    struct nsm_answer answer;

    if (call(nsm, &request, &bytes, &answer, err) < 0)
        return -1;
    if (value)
        memcpy(value, answer.bytes.ptr, NSM_PCR_LEN);
    return 0;
}

static int lock_call(struct nsm *nsm, enum nsm_op op, uint16_t index, struct error *err)
{
    const struct nsm_request request = {.op = op, .index = index};
    AUTO_BUF struct buf bytes = {0};
    struct nsm_answer answer;

    return call(nsm, &request, &bytes, &answer, err);
}

int nsm_lock_pcr(struct nsm *nsm, uint16_t index, struct error *err)
{
    return lock_call(nsm, NSM_LOCK_PCR, index, err);
}

int nsm_lock_pcrs(struct nsm *nsm, uint16_t range, struct error *err)
{
    return lock_call(nsm, NSM_LOCK_PCRS, range, err);
}

static int draw(struct nsm *nsm, uint8_t *out, size_t len, struct error *err)
{
    const struct nsm_request request = {.op = NSM_GET_RANDOM};
    size_t done = 0;
    int empty = 0;

    while (done < len) {
        AUTO_BUF struct buf bytes = {0};
        struct nsm_answer answer;
        size_t part;

        if (exchange(nsm, &request, &bytes, &answer, err) < 0)
            return -1;
        if (answer.bytes.len == 0 && ++empty == EMPTY_ANSWERS_MAX)
            return error_set(err, ERR_INTERNAL, "the NSM gives no random bytes");
        if (answer.bytes.len == 0)
            continue;
        empty = 0;
        part = answer.bytes.len < len - done ? answer.bytes.len : len - done;
        memcpy(out + done, answer.bytes.ptr, part);
        done += part;
    }
    return 0;
}

int nsm_random(struct nsm *nsm, uint8_t *out, size_t len, struct error *err)
{
    int ret;

    take_turn(nsm, true);
    ret = draw(nsm, out, len, err);
    end_turn(nsm);
    if (ret < 0)
        mem_wipe(out, len);
    return ret;
}

int nsm_fill(void *nsm, uint8_t *out, size_t len, struct error *err)
{
    return nsm_random(nsm, out, len, err);
}

static int check_option(const char *name, const struct nsm_option *option, size_t min, size_t max,
                        struct error *err)
{
    if (!option->present || (option->bytes.len >= min && option->bytes.len <= max))
        return 0;
    return error_set(err, ERR_LIMIT, "%s has %zu bytes; %zu to %zu are allowed", name,
                     option->bytes.len, min, max);
}

int nsm_attest(struct nsm *nsm, struct nsm_option user_data, struct nsm_option nonce,
               struct nsm_option public_key, struct buf *document, struct error *err)
{
    const struct nsm_request request = {
        .op = NSM_ATTESTATION, .user_data = user_data, .nonce = nonce, .public_key = public_key};
    AUTO_BUF struct buf bytes = {0};
    struct nsm_answer answer;

    if (check_option("user_data", &user_data, 0, NSM_USER_DATA_MAX, err) < 0 ||
        check_option("nonce", &nonce, 0, NSM_NONCE_MAX, err) < 0 ||
        check_option("public_key", &public_key, 1, NSM_PUBLIC_KEY_MAX, err) < 0 ||
        call(nsm, &request, &bytes, &answer, err) < 0)
        return -1;
    if (answer.bytes.len == 0)
        return error_set(err, ERR_INTERNAL, "the NSM gives an empty document");
    if (buf_append(document, answer.bytes.ptr, answer.bytes.len) < 0)
        return error_set(err, ERR_LIMIT, "no room for the attestation document");
    return 0;
}
