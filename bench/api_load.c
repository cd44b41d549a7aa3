/*
 * Load for the API benchmark, and what the API is held against.
 *
 *   api_load empty                          an evhttp server that does nothing; prints its port
 *   api_load http PORT CONNECTIONS COUNT FILE
 *                                           COUNT times the request in FILE
 *   api_load decrypt PORT CONNECTIONS COUNT POINT
 *                                           COUNT messages for the key whose point is POINT (hex)
 *   api_load flood PORT CONNECTIONS FILE    without end
 *   api_load crypto KIND COUNT              sign, sign-tx, seal or open without HTTP, in one thread
 *   api_load nsm COUNT CA                   attestation documents straight from the soft NSM
 *
 * All but the servers print a line: how many per second, the median and the 99th percentile of what
 * one took in us, and how many per second of this process's own processor time. Each connection has
 * one request under way and is kept alive.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "crypto/eth.h"
#include "crypto/keccak.h"
#include "crypto/p384_box.h"
#include "crypto/secp256k1.h"
#include "nsm/soft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/http.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 256
#define CROWD           64 /* that many connections are there for the rate, fewer for the time */
#define REPLY_MAX       65536

static const char plaintext[] =
    "{\"amount\":\"1000000\",\"to\":\"somebody\",\"memo\":\"a small message\"}";

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "api_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- times ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

struct stopwatch {
    int64_t wall_ns, cpu_ns;
};

static struct stopwatch now(void)
{
    struct timespec cpu;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    return (struct stopwatch){clock_mono_ns(), cpu.tv_sec * 1000000000 + cpu.tv_nsec};
}

static void report(double *took_us, size_t count, struct stopwatch started)
{
    struct stopwatch end = now();
    double each = (double)count * 1e9;

    qsort(took_us, count, sizeof(*took_us), compare);
    printf("%.1f %.1f %.1f %.1f\n", each / (double)(end.wall_ns - started.wall_ns),
           took_us[count / 2], took_us[count - 1 - count / 100],
           each / (double)(end.cpu_ns - started.cpu_ns));
}

/* ---- the empty handler ---- */

static void on_request(struct evhttp_request *req, void *arg)
{
    (void)arg;
    evhttp_send_reply(req, 200, "OK", NULL);
}

static int serve_empty(void)
{
    struct event_base *base = event_base_new();
    struct evhttp *http = evhttp_new(base);
    struct evhttp_bound_socket *bound = evhttp_bind_socket_with_handle(http, "127.0.0.1", 0);
    struct sockaddr_in sa;
    socklen_t len = sizeof(sa);

    if (!bound || getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&sa, &len) < 0)
        fail("listen");
    evhttp_set_allowed_methods(http, EVHTTP_REQ_GET | EVHTTP_REQ_POST);
    evhttp_set_gencb(http, on_request, NULL);
    printf("%u\n", ntohs(sa.sin_port));
    fflush(stdout);
    return event_base_dispatch(base);
}

/* ---- requests over HTTP ---- */

struct client {
    int fd;
    int64_t sent_ns;
    char reply[REPLY_MAX];
    size_t have;
};

struct load {
    const struct slice *requests; /* used in turn */
    size_t kinds, sent, done, count;
    double *took_us;
    bool spins; /* or else sleeps, and the server pays for waking another virtual processor */
};

static int dial(const char *port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(port)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static void send_next(struct load *l, struct client *c)
{
    struct slice request = l->requests[l->sent % l->kinds];

    if (l->sent == l->count)
        return;
    l->sent++;
    c->have = 0;
    c->sent_ns = clock_mono_ns();
    if (send(c->fd, request.ptr, request.len, MSG_NOSIGNAL) != (ssize_t)request.len)
        fail("send");
}

/* Whether the reply is all there. Any but 200 ends the benchmark. */
static bool reply_is_whole(const struct client *c)
{
    const char *end = memmem(c->reply, c->have, "\r\n\r\n", 4), *length;

    if (!end)
        return false;
    length = memmem(c->reply, (size_t)(end - c->reply), "Content-Length: ", 16);
    if (strncmp(c->reply, "HTTP/1.1 200", 12) != 0 || !length) {
        fprintf(stderr, "api_load: %.*s\n", (int)c->have, c->reply);
        exit(1);
    }
    return c->have >= (size_t)(end + 4 - c->reply) + (size_t)atol(length + 16);
}

static void take_reply(struct load *l, struct client *c)
{
    ssize_t n = recv(c->fd, c->reply + c->have, REPLY_MAX - c->have, 0);

    if (n <= 0)
        fail("recv");
    c->have += (size_t)n;
    if (!reply_is_whole(c))
        return;
    if (l->took_us)
        l->took_us[l->done] = (double)(clock_mono_ns() - c->sent_ns) / 1e3;
    l->done++;
    send_next(l, c);
}

static void run(struct load *l, const char *port, int connections)
{
    static struct client clients[CONNECTIONS_MAX];
    struct epoll_event events[CONNECTIONS_MAX];
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};

        clients[i].fd = dial(port);
        epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &event);
        send_next(l, &clients[i]);
    }
    while (l->done < l->count) {
        int ready = epoll_wait(epoll, events, connections, l->spins ? 0 : -1);

        for (int i = 0; i < ready; i++)
            take_reply(l, events[i].data.ptr);
    }
}

static void measure(const struct slice *requests, size_t kinds, char **argv)
{
    struct load l = {.requests = requests, .kinds = kinds, .count = (size_t)atol(argv[2])};
    struct stopwatch started;

    l.spins = atoi(argv[1]) == CROWD;
    l.took_us = xcalloc(l.count, sizeof(*l.took_us));
    started = now();
    run(&l, argv[0], atoi(argv[1]));
    report(l.took_us, l.count, started);
    free(l.took_us);
}

static struct slice read_request(const char *path, struct buf *text)
{
    struct error err;

    *text = BUF(1 << 20);
    if (file_read(path, text, &err) < 0)
        fail(err.msg);
    return buf_slice(text);
}

static struct p384_key *draw_key(void)
{
    struct error err;
    struct p384_key *key = p384_key_draw(&entropy_kernel, &err);

    if (!key)
        fail(err.msg);
    return key;
}

/* A message nobody has seen. */
static struct slice decrypt_request(const struct p384_key *key, const uint8_t *peer,
                                    uint64_t number)
{
    AUTO_BUF struct buf sealed = BUF(1024), body = BUF(4096);
    uint8_t nonce[P384_BOX_NONCE_LEN] = {0}, point[P384_POINT_LEN], spki[P384_SPKI_LEN];
    AUTO_FREE char *hex = NULL, *hex_nonce = NULL, *hex_key = NULL;
    char *text;

    put_be64(nonce, number);
    p384_key_point(key, point);
    p384_point_spki(point, spki);
    if (p384_box_seal(key, peer, nonce, slice_str(plaintext), &sealed) < 0)
        fail("sealing");
    hex = hex_encode_dup("", buf_slice(&sealed));
    hex_nonce = hex_encode_dup("", slice_of(nonce, sizeof(nonce)));
    hex_key = hex_encode_dup("", slice_of(spki, sizeof(spki)));
    if (buf_printf(&body,
                   "{\"nonce\":\"%s\",\"client_public_key\":\"%s\",\"encrypted_data\":\"%s\"}",
                   hex_nonce, hex_key, hex) < 0)
        fail("request");
    text = xasprintf("POST /v1/encryption/decrypt HTTP/1.1\r\nHost: x\r\nContent-Length: "
                     "%zu\r\n\r\n%s",
                     body.len, buf_cstr(&body));
    return slice_str(text);
}

static void measure_decrypt(char **argv)
{
    size_t count = (size_t)atol(argv[2]);
    struct slice *requests = xcalloc(count, sizeof(*requests));
    struct p384_key *key = draw_key();
    uint8_t peer[P384_POINT_LEN];

    if (hex_decode(slice_str(argv[3]), peer, sizeof(peer)) < 0)
        fail("POINT");
    for (size_t i = 0; i < count; i++)
        requests[i] = decrypt_request(key, peer, i);
    measure(requests, count, argv);
    for (size_t i = 0; i < count; i++)
        free((void *)(uintptr_t)requests[i].ptr);
    free(requests);
    p384_key_free(key);
}

/* ---- the same without HTTP ---- */

struct keys {
    struct k256_key *eth;
    struct p384_key *own;
    uint8_t peer[P384_POINT_LEN];
    struct buf sealed; /* by the peer under the nonce of zeros */
};

static void do_sign(struct keys *k)
{
    uint8_t digest[K256_DIGEST_LEN], signature[K256_SIGNATURE_LEN];

    eth_message_digest(slice_str("hello world"), digest);
    if (k256_sign(k->eth, digest, signature) < 0)
        fail("signing");
}

/* The digest of what is signed and that of what was signed. */
static void do_sign_tx(struct keys *k)
{
    static const uint8_t unsigned_tx[49], signed_tx[116];
    uint8_t digest[KECCAK256_LEN], signature[K256_SIGNATURE_LEN], hash[KECCAK256_LEN];

    keccak256_once(slice_of(unsigned_tx, sizeof(unsigned_tx)), digest);
    if (k256_sign(k->eth, digest, signature) < 0)
        fail("signing");
    keccak256_once(slice_of(signed_tx, sizeof(signed_tx)), hash);
}

static void do_seal(struct keys *k)
{
    static const uint8_t nonce[P384_BOX_NONCE_LEN];
    AUTO_BUF struct buf out = BUF(1024);

    if (p384_box_seal(k->own, k->peer, nonce, slice_str(plaintext), &out) < 0)
        fail("sealing");
}

static void do_open(struct keys *k)
{
    static const uint8_t nonce[P384_BOX_NONCE_LEN];
    AUTO_BUF struct buf out = BUF_SECRET(1024);

    if (p384_box_open(k->own, k->peer, nonce, buf_slice(&k->sealed), &out) < 0)
        fail("opening");
}

static void time_each(void (*once)(struct keys *), struct keys *k, size_t count)
{
    double *took_us = xcalloc(count, sizeof(*took_us));
    struct stopwatch started = now();

    for (size_t i = 0; i < count; i++) {
        int64_t before = clock_mono_ns();

        once(k);
        took_us[i] = (double)(clock_mono_ns() - before) / 1e3;
    }
    report(took_us, count, started);
    free(took_us);
}

static void measure_crypto(const char *kind, size_t count)
{
    static const struct {
        const char *name;
        void (*once)(struct keys *k);
    } kinds[] = {{"sign", do_sign}, {"sign-tx", do_sign_tx}, {"seal", do_seal}, {"open", do_open}};
    static const uint8_t nonce[P384_BOX_NONCE_LEN];
    struct keys k = {.own = draw_key(), .sealed = BUF(1024)};
    struct p384_key *peer = draw_key();
    uint8_t own[P384_POINT_LEN];
    struct error err;

    k.eth = k256_key_draw(&entropy_kernel, &err);
    p384_key_point(peer, k.peer);
    p384_key_point(k.own, own);
    if (!k.eth || p384_box_seal(peer, own, nonce, slice_str(plaintext), &k.sealed) < 0)
        fail("keys");
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(kind, kinds[i].name) == 0)
            time_each(kinds[i].once, &k, count);
    buf_free(&k.sealed);
    p384_key_free(peer);
    p384_key_free(k.own);
    k256_key_free(k.eth);
}

static void measure_nsm(size_t count, const char *ca)
{
    struct soft_nsm_config config = {.ca_dir = ca};
    struct error err;
    struct soft_nsm *soft = soft_nsm_new(&config, &err);
    AUTO_BUF struct buf request = BUF(NSM_REQUEST_MAX);
    static const uint8_t key[120];
    double *took_us = xcalloc(count, sizeof(*took_us));
    struct nsm_request r = {.op = NSM_ATTESTATION,
                            .user_data = nsm_option_of(slice_of(key, 57)),
                            .public_key = nsm_option_of(slice_of(key, sizeof(key)))};
    struct stopwatch started = now();

    if (!soft || nsm_request_encode(&r, &request, &err) < 0)
        fail(err.msg);
    for (size_t i = 0; i < count; i++) {
        AUTO_BUF struct buf answer = BUF(NSM_ANSWER_MAX);
        int64_t before = clock_mono_ns();

        soft_nsm_answer(soft, buf_slice(&request), &answer);
        took_us[i] = (double)(clock_mono_ns() - before) / 1e3;
    }
    report(took_us, count, started);
    free(took_us);
    soft_nsm_free(soft);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    struct buf text = {0};
    struct slice request;

    log_setup(LOG_ERROR, LOG_TEXT);
    if (argc == 2 && strcmp(mode, "empty") == 0)
        return serve_empty();
    if (argc == 6 && strcmp(mode, "http") == 0) {
        request = read_request(argv[5], &text);
        measure(&request, 1, argv + 2);
    } else if (argc == 6 && strcmp(mode, "decrypt") == 0) {
        measure_decrypt(argv + 2);
    } else if (argc == 5 && strcmp(mode, "flood") == 0) {
        struct load l = {.requests = &request, .kinds = 1, .count = SIZE_MAX};

        request = read_request(argv[4], &text);
        run(&l, argv[2], atoi(argv[3]));
    } else if (argc == 4 && strcmp(mode, "crypto") == 0) {
        measure_crypto(argv[2], (size_t)atol(argv[3]));
    } else if (argc == 4 && strcmp(mode, "nsm") == 0) {
        measure_nsm((size_t)atol(argv[2]), argv[3]);
    } else {
        fputs("Usage: see the top of bench/api_load.c\n", stderr);
        return 2;
    }
    buf_free(&text);
    return 0;
}
