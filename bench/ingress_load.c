/*
 * Load for the ingress benchmark: a server (the app in the enclave) and a client that measures one
 * address. bench/ingress runs the client against the server directly and through shell and runtime.
 *
 *   ingress_load serve PORT
 *   ingress_load measure PORT      prints: round trip in us, MiB/s, connections per second
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
#define BATCHES     21 /* the median counts: other work on the machine comes and goes */
#define CONNECTIONS 1000
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

static double round_trip_us(int fd)
{
    uint8_t message[MESSAGE] = {'e'};
    int64_t start = clock_mono_ns();

    for (int i = 0; i < ROUND_TRIPS; i++) {
        write_full(fd, message, MESSAGE);
        read_full(fd, message, MESSAGE);
    }
    return (double)(clock_mono_ns() - start) / ROUND_TRIPS / 1000;
}

static double bulk_mib_s(int fd)
{
    static uint8_t block[BLOCK];
    uint8_t message[MESSAGE] = {'d'};
    uint64_t left = BULK_BYTES;
    int64_t start = clock_mono_ns();

    put_be64(message + 1, left);
    write_full(fd, message, MESSAGE);
    while (left) {
        ssize_t n = read(fd, block, left < BLOCK ? (size_t)left : BLOCK);

        if (n <= 0)
            fail("read");
        left -= (uint64_t)n;
    }
    return (double)BULK_BYTES / (1 << 20) / ((double)(clock_mono_ns() - start) / 1e9);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double (*batch)(int fd), int fd)
{
    double results[BATCHES];

    for (int i = 0; i < BATCHES; i++)
        results[i] = batch(fd);
    qsort(results, BATCHES, sizeof(*results), compare);
    return results[BATCHES / 2];
}

static double connections_s(const char *port)
{
    uint8_t message[MESSAGE] = {'e'};
    int64_t start = clock_mono_ns();

    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = dial(port);

        write_full(fd, message, MESSAGE);
        read_full(fd, message, MESSAGE);
        close(fd);
    }
    return CONNECTIONS / ((double)(clock_mono_ns() - start) / 1e9);
}

int main(int argc, char **argv)
{
    int fd;

    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2]);
    if (argc != 3 || strcmp(argv[1], "measure") != 0) {
        fputs("Usage: ingress_load serve|measure PORT\n", stderr);
        return 2;
    }
    fd = dial(argv[2]);
    printf("%.2f", median(round_trip_us, fd));
    printf(" %.0f", median(bulk_mib_s, fd));
    close(fd);
    printf(" %.0f\n", connections_s(argv[2]));
    return 0;
}
