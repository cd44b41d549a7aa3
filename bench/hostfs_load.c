/*
 * hostfs_load WORD ARG MIB [CID]: one stream of MIB MiB, 1 MiB at a time; prints MiB per second.
 *   write PATH   to a file, until it is closed
 *   sync PATH    to a file, with an fsync at the end
 *   read PATH    from a file, without this kernel's cache
 *   cold PATH    from a file, through this kernel's cache, which has nothing of it at first
 *   send PORT    to a listener of the host, through AF_VSOCK; the time ends when it says so
 *   receive PORT from one
 * Runs inside an enclave for bench/hostfs_vm.py. Static: an image needs nothing else.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h> /* after sys/socket.h */

#define PIECE (1u << 20)

static uint8_t piece[PIECE] __attribute__((aligned(4096)));

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int dial(unsigned int port, unsigned int cid)
{
    const struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
        err(1, "connecting to port %u of the host", port);
    return fd;
}

static void put_all(int fd, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, piece, len < PIECE ? len : PIECE);

        if (n <= 0)
            err(1, "writing");
        len -= (size_t)n;
    }
}

static void take_all(int fd, size_t len)
{
    while (len > 0) {
        ssize_t n = read(fd, piece, len < PIECE ? len : PIECE);

        if (n <= 0)
            err(1, "reading");
        len -= (size_t)n;
    }
}

static int open_file(const char *path, int flags)
{
    int fd = open(path, flags, 0644);

    if (fd < 0)
        err(1, "%s", path);
    return fd;
}

static int open_cold(const char *path)
{
    int fd = open_file(path, O_RDONLY), why = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);

    if (why != 0)
        errx(1, "%s: dropping it from the cache: %s", path, strerror(why));
    return fd;
}

int main(int argc, char **argv)
{
    const char *word = argc > 3 ? argv[1] : "";
    size_t mib = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    unsigned int port = argc > 3 ? (unsigned int)strtoul(argv[2], NULL, 10) : 0;
    unsigned int cid = argc > 4 ? (unsigned int)strtoul(argv[4], NULL, 10) : 2;
    double begin = now();

    if (!strcmp(word, "write") || !strcmp(word, "sync")) {
        int fd = open_file(argv[2], O_WRONLY | O_CREAT);

        put_all(fd, mib * PIECE);
        if (!strcmp(word, "sync") && fsync(fd) < 0)
            err(1, "fsync");
        if (close(fd) < 0)
            err(1, "close");
    } else if (!strcmp(word, "read")) {
        take_all(open_file(argv[2], O_RDONLY | O_DIRECT), mib * PIECE);
    } else if (!strcmp(word, "cold")) {
        int fd = open_cold(argv[2]);

        begin = now();
        take_all(fd, mib * PIECE);
    } else if (!strcmp(word, "send")) {
        int fd = dial(port, cid);

        put_all(fd, mib * PIECE);
        take_all(fd, 1);
    } else if (!strcmp(word, "receive")) {
        take_all(dial(port, cid), mib * PIECE);
    } else {
        errx(2, "hostfs_load write|sync|read|cold|send|receive PATH|PORT MIB [CID]");
    }
    printf("%.1f\n", (double)mib / (now() - begin));
    return 0;
}
