#include "fault_nsm.h"

#include "base/file.h"
#include "base/text.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

enum fault {
    FAULT_NONE,
    FAULT_ERROR,
    FAULT_BYTES,
    FAULT_FRAME,
    FAULT_HANG,
    FAULT_DELAY,
    FAULT_SHORT,
    FAULT_EMPTY,
    FAULT_DEVICE,
};

struct fault_nsm {
    struct soft_nsm *soft;
    struct connection *connections; /* all there ever were; the client dials one at a time */
    pthread_mutex_t lock;           /* over everything below */
    pthread_cond_t changed;
    size_t ending; /* so many have sent their last and are not closed yet */
    size_t seen[NSM_GET_RANDOM + 1];
    struct buf last[NSM_GET_RANDOM + 1]; /* request of each operation */
    enum fault fault;
    enum nsm_status status; /* of FAULT_ERROR */
    uint64_t number;        /* of FAULT_DELAY, FAULT_SHORT and FAULT_EMPTY */
    struct buf bytes;       /* of FAULT_BYTES and FAULT_FRAME */
    struct buf document;    /* the last answer to an attestation */
};

struct connection {
    struct connection *next;
    struct fault_nsm *f;
    pthread_t thread;
    int fd;
};

struct fault_nsm *fault_nsm_new(struct soft_nsm *soft)
{
    struct fault_nsm *f = xcalloc(1, sizeof(*f));

    f->soft = soft;
    f->document = BUF(NSM_ANSWER_MAX);
    for (size_t i = 0; i < ARRAY_LEN(f->last); i++)
        f->last[i] = BUF(NSM_REQUEST_MAX);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    return f;
}

void fault_nsm_free(struct fault_nsm *f)
{
    struct connection *c, *next;

    for (c = f->connections; c; c = next) {
        next = c->next;
        pthread_join(c->thread, NULL);
        free(c);
    }
    buf_free(&f->bytes);
    buf_free(&f->document);
    for (size_t i = 0; i < ARRAY_LEN(f->last); i++)
        buf_free(&f->last[i]);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* ---- answers ---- */

static void append(struct buf *out, struct slice bytes)
{
    if (buf_append(out, bytes.ptr, bytes.len) < 0)
        abort();
}

static void encode(const struct nsm_answer *answer, struct buf *out)
{
    if (nsm_answer_encode(answer, out, NULL) < 0)
        abort();
}

/* The soft NSM's own answer; at most `most` random bytes. */
static void answer_softly(struct fault_nsm *f, struct slice request, enum nsm_op op, size_t most,
                          struct buf *out)
{
    AUTO_BUF struct buf whole = BUF_SECRET(NSM_ANSWER_MAX);
    struct nsm_answer answer;

    soft_nsm_answer(f->soft, request, &whole);
    if (op == NSM_GET_RANDOM && nsm_answer_decode(buf_slice(&whole), op, &answer, NULL) == 0) {
        if (answer.bytes.len > most)
            answer.bytes.len = most;
        encode(&answer, out);
    } else {
        append(out, buf_slice(&whole));
    }
}

/* As the soft NSM, with the lock given up meanwhile, by what is left of the rules then. */
static void answer_in_time(struct fault_nsm *f, struct slice request, enum nsm_op op,
                           struct buf *out)
{
    bool slow = f->fault == FAULT_DELAY || f->fault == FAULT_DEVICE;
    bool again = f->fault == FAULT_DEVICE && op == NSM_ATTESTATION && f->document.len;
    struct timespec delay = {(time_t)(f->number / 1000), (long)(f->number % 1000) * 1000000};
    size_t most = f->fault == FAULT_SHORT ? f->number : NSM_RANDOM_LEN, start = out->len;

    if (f->fault == FAULT_EMPTY && op == NSM_GET_RANDOM && f->number > 0) {
        f->number--;
        most = 0;
    }
    pthread_mutex_unlock(&f->lock);
    if (slow)
        clock_nanosleep(CLOCK_MONOTONIC, 0, &delay, NULL);
    if (!again)
        answer_softly(f, request, op, most, out);
    pthread_mutex_lock(&f->lock);
    if (again) {
        append(out, buf_slice(&f->document));
    } else if (op == NSM_ATTESTATION) {
        buf_clear(&f->document);
        append(&f->document, slice_of(out->ptr + start, out->len - start));
    }
}

/* Appends the answer by the rules of the moment. False: it is all there is on this connection. */
static bool answer_request(struct fault_nsm *f, struct slice request, enum nsm_op op,
                           struct buf *out)
{
    static const uint8_t head[4];
    struct nsm_answer error = {0};

    while (f->fault == FAULT_HANG)
        pthread_cond_wait(&f->changed, &f->lock);
    if (f->fault == FAULT_FRAME) {
        f->ending++;
        append(out, buf_slice(&f->bytes));
        return false;
    }
    append(out, slice_of(head, sizeof(head)));
    if (f->fault == FAULT_ERROR) {
        error.status = f->status;
        encode(&error, out);
    } else if (f->fault == FAULT_BYTES) {
        append(out, buf_slice(&f->bytes));
    } else {
        answer_in_time(f, request, op, out);
    }
    put_be32(out->ptr, (uint32_t)(out->len - sizeof(head)));
    return true;
}

static bool serve_request(struct fault_nsm *f, int fd, bool *is_last)
{
    AUTO_BUF struct buf out = BUF_SECRET(4 + 2 * NSM_ANSWER_MAX);
    uint8_t bytes[NSM_REQUEST_MAX], head[4];
    struct nsm_request decoded = {0};
    struct slice request;

    if (fd_read_full(fd, head, sizeof(head), "client", NULL) < 0 ||
        get_be32(head) > sizeof(bytes) ||
        fd_read_full(fd, bytes, get_be32(head), "client", NULL) < 0)
        return false;
    request = slice_of(bytes, get_be32(head));
    if (nsm_request_decode(request, &decoded, NULL) < 0)
        abort(); /* the client under test always asks well */
    pthread_mutex_lock(&f->lock);
    f->seen[decoded.op]++;
    buf_clear(&f->last[decoded.op]);
    append(&f->last[decoded.op], request);
    pthread_cond_broadcast(&f->changed);
    *is_last = !answer_request(f, request, decoded.op, &out);
    pthread_mutex_unlock(&f->lock);
    return send(fd, out.ptr, out.len, MSG_NOSIGNAL) == (ssize_t)out.len && !*is_last;
}

static void *serve(void *arg)
{
    struct connection *c = arg;
    struct fault_nsm *f = c->f;
    bool is_last = false;

    while (serve_request(f, c->fd, &is_last))
        continue;
    fd_close(&c->fd);
    pthread_mutex_lock(&f->lock);
    f->ending -= is_last;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

int fault_nsm_dial(void *arg, struct error *err)
{
    struct connection *c = xcalloc(1, sizeof(*c));
    struct fault_nsm *f = arg;
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
        free(c);
        return error_sys(err, errno, "socketpair");
    }
    *c = (struct connection){.next = f->connections, .f = f, .fd = fds[1]};
    f->connections = c;
    if (pthread_create(&c->thread, NULL, serve, c) != 0)
        abort();
    return fds[0];
}

/* ---- commands ---- */

static bool op_of(const char *name, enum nsm_op *out)
{
    for (enum nsm_op op = NSM_DESCRIBE_NSM; op <= NSM_GET_RANDOM; op++) {
        if (strcmp(name, nsm_op_name(op)) == 0) {
            *out = op;
            return true;
        }
    }
    return false;
}

static bool status_of(const char *name, enum nsm_status *out)
{
    for (enum nsm_status s = NSM_INVALID_ARGUMENT; s <= NSM_INTERNAL_ERROR; s++) {
        if (strcmp(name, nsm_status_name(s)) == 0) {
            *out = s;
            return true;
        }
    }
    return false;
}

/* With the lock. What ended a connection has done so when the next command is taken. */
static bool set_fault(struct fault_nsm *f, const char *verb, const char *word)
{
    static const struct {
        const char *verb;
        enum fault fault;
        bool number, bytes;
    } faults[] = {
        {"ok", FAULT_NONE, false, false},      {"error", FAULT_ERROR, false, false},
        {"bytes", FAULT_BYTES, false, true},   {"frame", FAULT_FRAME, false, true},
        {"hang", FAULT_HANG, false, false},    {"delay", FAULT_DELAY, true, false},
        {"short", FAULT_SHORT, true, false},   {"empty", FAULT_EMPTY, true, false},
        {"device", FAULT_DEVICE, true, false},
    };

    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        if (strcmp(verb, faults[i].verb) != 0)
            continue;
        while (f->ending)
            pthread_cond_wait(&f->changed, &f->lock);
        buf_free(&f->bytes);
        f->bytes = BUF(2 * NSM_ANSWER_MAX);
        if ((faults[i].fault == FAULT_ERROR && !status_of(word, &f->status)) ||
            (faults[i].number && parse_u64(slice_str(word), 1000000, &f->number) < 0) ||
            (faults[i].bytes && hex_decode_buf(slice_str(word), &f->bytes) < 0))
            return false;
        f->fault = faults[i].fault;
        pthread_cond_broadcast(&f->changed);
        return true;
    }
    return false;
}

int fault_nsm_command(struct fault_nsm *f, const char *line, struct buf *reply, struct error *err)
{
    char verb[16] = "", word[3 * NSM_ANSWER_MAX] = "";
    unsigned long number = 0;
    enum nsm_op op;
    int words = sscanf(line, "%15s %36863s %lu", verb, word, &number);
    bool known;

    pthread_mutex_lock(&f->lock);
    if (words == 3 && strcmp(verb, "await") == 0 && op_of(word, &op)) {
        while (f->seen[op] < number)
            pthread_cond_wait(&f->changed, &f->lock);
        known = buf_append_str(reply, "ok") == 0;
    } else if (words == 2 && strcmp(verb, "count") == 0 && op_of(word, &op)) {
        known = buf_printf(reply, "%zu", f->seen[op]) == 0;
    } else if (words == 2 && strcmp(verb, "last") == 0 && op_of(word, &op)) {
        AUTO_FREE char *hex = hex_encode_dup("", buf_slice(&f->last[op]));

        known = buf_append_str(reply, hex) == 0;
    } else {
        known = set_fault(f, verb, word) && buf_append_str(reply, "ok") == 0;
    }
    pthread_mutex_unlock(&f->lock);
    return known ? 0 : error_set(err, ERR_USAGE, "not a command: %.80s", line);
}
