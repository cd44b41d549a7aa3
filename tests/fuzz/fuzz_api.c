/*
 * The Capsule API or the Aux API as a client sees it. The first byte chooses: bit 0 the Aux API,
 * bit 1 that the rest, which is all that the client sends, comes in two pieces. The client then
 * ends its direction, and the server must end the connection, after whole replies only: at least
 * one when there is a whole head. The keys live as long as the process; the soft NSM signs once and
 * repeats that document, as signatures are not what is looked for here.
 */
#include "api/capsule_api.h"
#include "base/file.h"
#include "base/log.h"
#include "codec/http_head.h"
#include "nsm/soft.h"
#include "vsock/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
const char *__lsan_default_suppressions(void);

/* What OpenSSL's threads own through its guarded memory, which the leak detector does not read. */
const char *__lsan_default_suppressions(void)
{
    return "leak:libcrypto.so\n";
}

#define INPUT_MAX 65536 /* fits into socket buffers */

static char dir[] = "/tmp/capsule-fuzz-api-XXXXXX";
static struct event_base *base;
static struct soft_nsm *soft;
static struct nsm *nsm;
static struct capsule_api *api;
static struct capsule_api_config config;

#define check(ok) check_at(ok, #ok, __LINE__)
static void check_at(bool ok, const char *what, int line)
{
    if (ok)
        return;
    fprintf(stderr, "fuzz_api.c:%d: not so: %s (errno %d)\n", line, what, errno);
    abort();
}

/* ---- the NSM ---- */

static void answer_nsm(struct slice request, struct buf *document, struct buf *answer)
{
    struct nsm_request decoded;

    check(nsm_request_decode(request, &decoded, NULL) == 0);
    if (decoded.op == NSM_ATTESTATION && document->len) {
        check(buf_append(answer, document->ptr, document->len) == 0);
        return;
    }
    soft_nsm_answer(soft, request, answer);
    if (decoded.op == NSM_ATTESTATION)
        check(buf_append(document, answer->ptr, answer->len) == 0);
}

static void *serve_nsm(void *arg)
{
    uint8_t head[4], request[NSM_REQUEST_MAX];
    AUTO_BUF struct buf document = BUF(NSM_ANSWER_MAX);
    int fd = (int)(intptr_t)arg;

    while (fd_read_full(fd, head, sizeof(head), "client", NULL) == 0) {
        AUTO_BUF struct buf answer = BUF(NSM_ANSWER_MAX);
        uint32_t len = get_be32(head);

        check(len <= sizeof(request) && fd_read_full(fd, request, len, "client", NULL) == 0);
        answer_nsm(slice_of(request, len), &document, &answer);
        put_be32(head, (uint32_t)answer.len);
        if (fd_write_all(fd, head, sizeof(head), "client", NULL) < 0 ||
            fd_write_all(fd, answer.ptr, answer.len, "client", NULL) < 0)
            break;
    }
    fd_close(&fd);
    return NULL;
}

static int dial_nsm(void *arg, struct error *err)
{
    pthread_t thread;
    int fds[2];

    (void)arg;
    (void)err;
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    check(pthread_create(&thread, NULL, serve_nsm, (void *)(intptr_t)fds[1]) == 0);
    pthread_detach(thread);
    return fds[0];
}

/* ---- the service ---- */

static void clean_up(void)
{
    capsule_api_stop(api);
    nsm_close(nsm);
    event_base_free(base);
    tree_remove(dir, NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const struct soft_nsm_config soft_config = {.ca_dir = dir};
    struct error err = {0};

    (void)argc;
    (void)argv;
    signal(SIGPIPE, SIG_IGN);
    log_setup(LOG_ERROR, LOG_TEXT);
    check(mkdtemp(dir) != NULL);
    soft = soft_nsm_new(&soft_config, &err);
    check(soft != NULL);
    base = event_base_new();
    nsm = nsm_open_stream(dial_nsm, NULL, NSM_STREAM_TIMEOUT_MS);
    config.nsm = nsm;
    do {
        int probe = listener_bind_tcp("127.0.0.1", 0, &err);

        config.port = socket_port(probe);
        config.aux_port = (uint16_t)(config.port + 1);
        close(probe);
    } while (capsule_api_start(base, &config, &api, &err) < 0 && err.sys == EADDRINUSE);
    check(api != NULL);
    atexit(clean_up);
    return 0;
}

/* ---- the client ---- */

struct client {
    struct event *readable;
    struct buf got;
    bool ended;
};

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct client *c = arg;
    uint8_t *space = buf_reserve(&c->got, INPUT_MAX);
    ssize_t n;

    (void)what;
    check(space != NULL);
    n = recv((int)fd, space, INPUT_MAX, 0);
    if (n > 0) {
        c->got.len += (size_t)n;
        return;
    }
    c->ended = true;
    event_del(c->readable);
}

/* Closing resets, so that no port stays taken for a minute. */
static int dial(uint16_t port)
{
    const struct linger reset = {.l_onoff = 1};
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        check(fd >= 0);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
            return fd;
        /* The fuzzer's timer, or other programs that hold every port for a moment. */
        check(errno == EINTR || errno == EADDRNOTAVAIL);
        fd_close(&fd);
        usleep(1000);
    }
}

static void send_piece(int fd, const uint8_t *data, size_t size)
{
    if (size && send(fd, data, size, MSG_NOSIGNAL) < 0)
        check(errno == EPIPE || errno == ECONNRESET); /* it has answered already */
    event_base_loop(base, EVLOOP_NONBLOCK);
}

/* Whole replies and nothing behind them. Replies to HEAD are not told apart: see below. */
static size_t count_replies(struct slice got)
{
    static const int known[] = {100, 200, 204, 400, 404, 405, 413, 414, 431, 503, 505};
    static struct http_head head;
    size_t count = 0;

    while (got.len) {
        struct http_scan scan = {0};
        struct http_body body;
        bool is_known = false;
        struct error err;

        check(http_scan(&scan, got) == HTTP_SCAN_DONE &&
              http_response_parse(slice_of(got.ptr, scan.pos), &head, &err) == 0 &&
              http_response_body(&head, slice_str("GET"), &body, &err) == 0);
        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            is_known = is_known || head.status == known[i];
        check(is_known &&
              (body.kind == HTTP_BODY_LENGTH || head.status == 204 || head.status == 100));
        got = slice_of(got.ptr + scan.pos, got.len - scan.pos);
        if (body.kind == HTTP_BODY_LENGTH) {
            check(body.length <= got.len);
            got = slice_of(got.ptr + body.length, got.len - body.length);
        }
        count += head.status != 100;
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct client c = {.got = BUF(64 << 20)};
    struct http_scan scan = {0};
    size_t first, replies;
    int fd;

    if (size == 0 || size > INPUT_MAX)
        return 0;
    fd = dial(data[0] & 1 ? config.aux_port : config.port);
    c.readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, &c);
    event_add(c.readable, NULL);
    first = data[0] & 2 ? size / 2 : size - 1;
    send_piece(fd, data + 1, first);
    send_piece(fd, data + 1 + first, size - 1 - first);
    shutdown(fd, SHUT_WR);
    while (!c.ended)
        event_base_loop(base, EVLOOP_ONCE);
    if (!memmem(data, size, "HEAD", 4)) {
        replies = count_replies(buf_slice(&c.got));
        check(replies > 0 || http_scan(&scan, slice_of(data + 1, size - 1)) == HTTP_SCAN_MORE);
    }
    event_free(c.readable);
    fd_close(&fd);
    buf_free(&c.got);
    return 0;
}
