/*
 * Load for the ingress benchmark: a server (the app in the enclave) and a client that measures one
 * address. bench/ingress runs the client against the server directly and through shell and runtime.
 *
 *   ingress_load serve PORT
 *   ingress_load measure DIRECT-PORT RELAYED-PORT
 *
 * The second measures both ports in turns, batch by batch, as other work on the machine comes and
 * goes, and prints a line for each of: round trip in us, one stream in MiB/s, requests per second
 * over 32 connections, new connections per second. A line holds the medians of the direct and of
 * the relayed batches and the median of the ratios of neighbours.
 *
 * Protocol: the client sends 64 bytes; the first is a command. 'e' echoes the 64 bytes, 'd' sends
 * the number of bytes that follows the command as big-endian u64.
 */
#include "base/clock.h"
#include "base/slice.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGE     64
#define ROUND_TRIPS 1000 /* a batch */
#define BULK_BYTES  ((uint64_t)128 << 20)
#define BATCHES     21
#define CONNECTIONS 200
#define CROWD       32  /* connections with a request under way */
#define ROUNDS      100 /* requests of each of them in a batch */
#define BLOCK       (256 * 1024)

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

static struct sockaddr_in loopback(const char *port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)atoi(port)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int serve(const char *port)
{
    struct sockaddr_in sa = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 1024) < 0)
        return fail("listen");
    for (;;) {
        int client = accept(fd, NULL, NULL);
        pthread_t thread;

        if (client < 0)
            continue;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (pthread_create(&thread, NULL, serve_one, (void *)(intptr_t)client) == 0)
            pthread_detach(thread);
    }
}

static int dial(const char *port)
{
    struct sockaddr_in sa = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

/* ---- what is measured; each takes an address and a connection to it ---- */

struct target {
    const char *port;
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
        int fd = dial(t->port);

        write_full(fd, message, MESSAGE);
        read_full(fd, message, MESSAGE);
        close(fd);
    }
    return CONNECTIONS / seconds_since(start);
}

/* ---- both targets in turns ---- */

static void measure(double (*batch)(const struct target *), const struct target *direct,
                    const struct target *relayed)
{
    double a[BATCHES], b[BATCHES], ratio[BATCHES];

    for (int i = 0; i < BATCHES; i++) {
        a[i] = batch(direct);
        b[i] = batch(relayed);
        ratio[i] = b[i] / a[i];
    }
    printf("%.2f", median(a, BATCHES));
    printf(" %.2f", median(b, BATCHES));
    printf(" %.3f\n", median(ratio, BATCHES));
}

static void open_target(struct target *t, const char *port)
{
    t->port = port;
    t->fd = dial(port);
    for (int i = 0; i < CROWD; i++)
        t->crowd[i] = dial(port);
}

int main(int argc, char **argv)
{
    static struct target direct, relayed;

    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2]);
    if (argc != 4 || strcmp(argv[1], "measure") != 0) {
        fputs("Usage: ingress_load serve PORT | measure DIRECT-PORT RELAYED-PORT\n", stderr);
        return 2;
    }
    open_target(&direct, argv[2]);
    open_target(&relayed, argv[3]);
    measure(round_trip_us, &direct, &relayed);
    measure(bulk_mib_s, &direct, &relayed);
    measure(requests_s, &direct, &relayed);
    measure(connections_s, &direct, &relayed);
    return 0;
}
