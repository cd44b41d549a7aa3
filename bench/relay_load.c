/*
 * Load for the relay benchmark (bench/relay.py): a server (the app, or what it asks), hops that do
 * nothing but pass bytes on, and a client that measures several ways to the server.
 *
 *   relay_load serve PORT
 *   relay_load hop LISTEN TARGET
 *   relay_load measure TARGET...
 *
 * LISTEN and TARGET are a TCP port on loopback, the path of a UNIX socket or, to measure,
 * PROXY:PORT: through the HTTP proxy at one port to another. A chain of hops shows what a way
 * through as many processes costs on this machine whatever they do.
 *
 * `measure` takes all targets in turns, batch by batch, as other work on the machine comes and
 * goes, and prints a line for each of: round trip in us, one stream in MiB/s, requests per second
 * over 32 connections, new connections per second. A line holds for every target the median of its
 * batches and the median of their ratios to the first target's neighbours.
 *
 * Protocol: the client sends 64 bytes; the first is a command. 'e' echoes the 64 bytes, 'd' sends
 * the number of bytes that follows the command as big-endian u64.
 */
#include "base/clock.h"
#include "base/slice.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MESSAGE     64
#define ROUND_TRIPS 1000 /* a batch */
#define BULK_BYTES  ((uint64_t)128 << 20)
#define BATCHES     21
#define CONNECTIONS 200
#define CROWD       32  /* connections with a request under way */
#define ROUNDS      100 /* requests of each of them in a batch */
#define BLOCK       (256 * 1024)
#define TARGETS_MAX 4

static int fail(const char *what)
{
    perror(what);
    exit(1);
}

static void read_full(int fd, uint8_t *ptr, size_t len)
{
    while (len) {
        ssize_t n = read(fd, ptr, len);

        if (n <= 0)
            fail("read");
        ptr += n;
        len -= (size_t)n;
    }
}

static void write_full(int fd, const uint8_t *ptr, size_t len)
{
    while (len) {
        ssize_t n = write(fd, ptr, len);

        if (n <= 0)
            fail("write");
        ptr += n;
        len -= (size_t)n;
    }
}

static void *serve_one(void *arg)
{
    int fd = (int)(intptr_t)arg;
    uint8_t request[MESSAGE], *block = xcalloc(1, BLOCK);
    size_t have = 0;
    ssize_t n;

    while ((n = read(fd, request + have, MESSAGE - have)) > 0) {
        have += (size_t)n;
        if (have < MESSAGE)
            continue;
        have = 0;
        if (request[0] == 'd') {
            for (uint64_t left = get_be64(request + 1); left;) {
                size_t piece = left < BLOCK ? (size_t)left : BLOCK;

                write_full(fd, block, piece);
                left -= piece;
            }
        } else {
            write_full(fd, request, MESSAGE);
        }
    }
    free(block);
    close(fd);
    return NULL;
}

/* ---- addresses ---- */

static socklen_t address_of(const char *text, struct sockaddr_storage *out)
{
    struct sockaddr_in *in = (void *)out;
    struct sockaddr_un *un = (void *)out;

    memset(out, 0, sizeof(*out));
    if (text[0] == '/') {
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof(un->sun_path), "%s", text);
        return sizeof(*un);
    }
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)atoi(text));
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sizeof(*in);
}

static void no_delay(int fd)
{
    const int on = 1;

    /* Fails, and need not be, on UNIX sockets. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static int dial_address(const char *text)
{
    struct sockaddr_storage sa;
    socklen_t len = address_of(text, &sa);
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connect(fd, (struct sockaddr *)&sa, len) < 0)
        fail("connect");
    no_delay(fd);
    return fd;
}

/* Through the HTTP proxy with PROXY:PORT. */
static int dial(const char *target)
{
    const char *port = strchr(target, ':');
    char text[256];
    size_t len = 0;
    int fd = dial_address(target);

    if (!port)
        return fd;
    len = (size_t)snprintf(text, sizeof(text), "CONNECT 127.0.0.1%s HTTP/1.1\r\nHost: x\r\n\r\n",
                           port);
    write_full(fd, (uint8_t *)text, len);
    for (len = 0; len < 4 || memcmp(text + len - 4, "\r\n\r\n", 4) != 0; len++) {
        if (len == sizeof(text))
            fail("the proxy's answer");
        read_full(fd, (uint8_t *)text + len, 1);
    }
    if (memcmp(text, "HTTP/1.1 200", 12) != 0)
        fail("the proxy refuses");
    return fd;
}

/* Accepts for ever; every connection gets a thread. */
static int serve(const char *address, void *(*one)(void *))
{
    struct sockaddr_storage sa;
    socklen_t len = address_of(address, &sa);
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, 1024) < 0)
        return fail("listen");
    for (;;) {
        int client = accept(fd, NULL, NULL);
        pthread_t thread;

        if (client < 0)
            continue;
        no_delay(client);
        if (pthread_create(&thread, NULL, one, (void *)(intptr_t)client) == 0)
            pthread_detach(thread);
    }
}

/* ---- hops ---- */

static const char *hop_target;

struct way {
    int from, to;
};

/* One direction: what is there goes on, by two calls that block. */
static void *pass_on(void *arg)
{
    struct way w = *(struct way *)arg;
    const int bytes = 4 * BLOCK;
    int pipe[2];
    ssize_t n;

    (void)setsockopt(w.to, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
    if (pipe2(pipe, O_CLOEXEC) < 0)
        fail("pipe");
    (void)fcntl(pipe[1], F_SETPIPE_SZ, BLOCK);
    while ((n = splice(w.from, NULL, pipe[1], NULL, BLOCK, SPLICE_F_MOVE)) > 0)
        while (n > 0) {
            ssize_t sent = splice(pipe[0], NULL, w.to, NULL, (size_t)n, SPLICE_F_MOVE);

            if (sent <= 0)
                break;
            n -= sent;
        }
    shutdown(w.to, SHUT_WR);
    close(pipe[0]);
    close(pipe[1]);
    return NULL;
}

static void *hop_one(void *arg)
{
    int client = (int)(intptr_t)arg, target = dial_address(hop_target);
    struct way there = {client, target}, back = {target, client};
    pthread_t thread;

    if (pthread_create(&thread, NULL, pass_on, &there) != 0)
        fail("thread");
    pass_on(&back);
    pthread_join(thread, NULL);
    close(client);
    close(target);
    return NULL;
}

/* ---- what is measured; each takes an address and a connection to it ---- */

struct target {
    const char *address;
    int fd;
    int crowd[CROWD];
};

static double seconds_since(int64_t start)
{
    return (double)(clock_mono_ns() - start) / 1e9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Sorts the values. */
static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), compare);
    return values[count / 2];
}

/* The median of the batch's messages: one that had to wait for a processor says nothing. */
static double round_trip_us(const struct target *t)
{
    static double took[ROUND_TRIPS];
    uint8_t message[MESSAGE] = {'e'};

    for (int i = 0; i < ROUND_TRIPS; i++) {
        int64_t start = clock_mono_ns();

        write_full(t->fd, message, MESSAGE);
        read_full(t->fd, message, MESSAGE);
        took[i] = seconds_since(start) * 1e6;
    }
    return median(took, ROUND_TRIPS);
}

static double bulk_mib_s(const struct target *t)
{
    static uint8_t block[BLOCK];
    uint8_t message[MESSAGE] = {'d'};
    uint64_t left = BULK_BYTES;
    int64_t start = clock_mono_ns();

    put_be64(message + 1, left);
    write_full(t->fd, message, MESSAGE);
    while (left) {
        ssize_t n = read(t->fd, block, left < BLOCK ? (size_t)left : BLOCK);

        if (n <= 0)
            fail("read");
        left -= (uint64_t)n;
    }
    return (double)BULK_BYTES / (1 << 20) / seconds_since(start);
}

static double requests_s(const struct target *t)
{
    uint8_t message[MESSAGE] = {'e'};
    int64_t start = clock_mono_ns();

    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CROWD; i++)
            write_full(t->crowd[i], message, MESSAGE);
        for (int i = 0; i < CROWD; i++)
            read_full(t->crowd[i], message, MESSAGE);
    }
    return CROWD * ROUNDS / seconds_since(start);
}

static double connections_s(const struct target *t)
{
    uint8_t message[MESSAGE] = {'e'};
    int64_t start = clock_mono_ns();

    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = dial(t->address);

        write_full(fd, message, MESSAGE);
        read_full(fd, message, MESSAGE);
        close(fd);
    }
    return CONNECTIONS / seconds_since(start);
}

/* ---- all targets in turns ---- */

static void measure(double (*batch)(const struct target *), const struct target *targets,
                    size_t count)
{
    static double value[TARGETS_MAX][BATCHES], ratio[TARGETS_MAX][BATCHES];

    for (int i = 0; i < BATCHES; i++) {
        for (size_t k = 0; k < count; k++) {
            value[k][i] = batch(&targets[k]);
            ratio[k][i] = value[k][i] / value[0][i];
        }
    }
    for (size_t k = 0; k < count; k++) {
        printf("%.2f ", median(value[k], BATCHES));
        printf("%.3f ", median(ratio[k], BATCHES));
    }
    printf("\n");
}

static void open_target(struct target *t, const char *address)
{
    t->address = address;
    t->fd = dial(address);
    for (int i = 0; i < CROWD; i++)
        t->crowd[i] = dial(address);
}

int main(int argc, char **argv)
{
    static struct target targets[TARGETS_MAX];
    size_t count = (size_t)argc - 2;

    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2], serve_one);
    if (argc == 4 && strcmp(argv[1], "hop") == 0) {
        hop_target = argv[3];
        return serve(argv[2], hop_one);
    }
    if (argc < 3 || count > TARGETS_MAX || strcmp(argv[1], "measure") != 0) {
        fputs("Usage: relay_load serve PORT | hop LISTEN TARGET | measure TARGET...\n", stderr);
        return 2;
    }
    for (size_t i = 0; i < count; i++)
        open_target(&targets[i], argv[2 + i]);
    measure(round_trip_us, targets, count);
    measure(bulk_mib_s, targets, count);
    measure(requests_s, targets, count);
    measure(connections_s, targets, count);
    return 0;
}
