/*
 * fuse-pump SOCKET NAME MOUNTPOINT [LANES | one]: mounts FUSE on this machine and passes messages
 * on between its kernel and a host mount's server, as an enclave does, but without checking either.
 * Prints "mounted" once the file system answers, and ends when a lane does or on end of input.
 * With "one", as a bad example: one request at a time, none of more than 128 KiB, nothing written
 * late or read ahead.
 */
#include "vsock/mountproto.h"

#include <endian.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PUMP_MAX  MOUNT_MESSAGE_MAX
#define PLAIN_MAX (128u * 1024)

struct lane {
    int device, link;
};

static struct lane lanes[MOUNT_LANES_MAX];
static int over[2];
static bool plain; /* one request at a time */

static void say_over(void)
{
    if (write(over[1], "", 1) < 0)
        _exit(1);
}

static void send_all(int fd, const uint8_t *bytes, size_t len)
{
    ssize_t n;

    for (; len > 0; bytes += n, len -= (size_t)n) {
        n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0) {
            say_over();
            pthread_exit(NULL);
        }
    }
}

static void take_all(int fd, uint8_t *bytes, size_t len)
{
    if (recv(fd, bytes, len, MSG_WAITALL) != (ssize_t)len) {
        say_over();
        pthread_exit(NULL);
    }
}

static void *requests(void *arg)
{
    const struct lane *l = arg;
    uint8_t *bytes = malloc(PUMP_MAX);
    ssize_t n;

    for (;;) {
        n = read(l->device, bytes, PUMP_MAX);
        if (n > 0)
            send_all(l->link, bytes, (size_t)n);
        else if (errno != EINTR && errno != ENOENT && errno != EAGAIN)
            break;
    }
    say_over();
    return NULL;
}

static void *answers(void *arg)
{
    const struct lane *l = arg;
    uint8_t *bytes = malloc(PUMP_MAX);
    uint32_t len;

    for (;;) {
        take_all(l->link, bytes, sizeof(len));
        memcpy(&len, bytes, sizeof(len));
        if (len < sizeof(struct fuse_out_header) || len > PUMP_MAX)
            errx(1, "an answer of %u bytes", len);
        take_all(l->link, bytes + sizeof(len), len - sizeof(len));
        /* ENOENT: the request was interrupted, and nobody waits. */
        if (write(l->device, bytes, len) < 0 && errno != ENOENT)
            warn("an answer that the kernel refuses");
    }
}

static bool is_silent(uint32_t opcode)
{
    return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT;
}

/* Takes away what lets a kernel have several requests under way for one program. */
static void make_plain(uint8_t *answer, uint32_t len)
{
    struct fuse_init_out *out = (void *)(answer + sizeof(struct fuse_out_header));

    if (len < sizeof(struct fuse_out_header) + sizeof(*out))
        return;
    out->flags &= ~(uint32_t)(FUSE_WRITEBACK_CACHE | FUSE_ASYNC_READ | FUSE_ASYNC_DIO |
                              FUSE_DO_READDIRPLUS | FUSE_PARALLEL_DIROPS);
    out->max_readahead = 0;
    out->max_write = PLAIN_MAX;
    out->max_pages = PLAIN_MAX / 4096;
}

static void *one_by_one(void *arg)
{
    const struct lane *l = arg;
    uint8_t *bytes = malloc(PUMP_MAX);
    struct fuse_in_header head;
    uint32_t len;
    ssize_t n;

    for (;;) {
        n = read(l->device, bytes, PUMP_MAX);
        if (n < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
            continue;
        if (n <= 0)
            break;
        memcpy(&head, bytes, sizeof(head));
        send_all(l->link, bytes, (size_t)n);
        if (is_silent(head.opcode))
            continue;
        take_all(l->link, bytes, sizeof(len));
        memcpy(&len, bytes, sizeof(len));
        if (len < sizeof(struct fuse_out_header) || len > PUMP_MAX)
            errx(1, "an answer of %u bytes", len);
        take_all(l->link, bytes + sizeof(len), len - sizeof(len));
        if (head.opcode == FUSE_INIT)
            make_plain(bytes, len);
        if (write(l->device, bytes, len) < 0 && errno != ENOENT)
            warn("an answer that the kernel refuses");
    }
    say_over();
    return NULL;
}

static int dial(const char *path, const char *name, uint32_t lane, struct mount_welcome *w)
{
    static uint8_t session[MOUNT_SESSION_LEN];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct mount_hello hello = {.lane = htole32(lane)};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        err(1, "connecting to %s", path);
    if (lane == 0 && getrandom(session, sizeof(session), 0) < 0)
        err(1, "getrandom");
    memcpy(hello.magic, MOUNT_MAGIC, sizeof(hello.magic));
    memcpy(hello.session, session, sizeof(session));
    snprintf(hello.name, sizeof(hello.name), "%s", name);
    if (send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) != (ssize_t)sizeof(hello) ||
        recv(fd, w, sizeof(*w), MSG_WAITALL) != (ssize_t)sizeof(*w))
        errx(1, "no welcome");
    if (w->error)
        errx(1, "refused: %s", strerror((int)le32toh(w->error)));
    return fd;
}

static void run(struct lane *l)
{
    pthread_t thread;

    if (plain && pthread_create(&thread, NULL, one_by_one, l) == 0)
        return;
    if (pthread_create(&thread, NULL, requests, l) != 0 ||
        pthread_create(&thread, NULL, answers, l) != 0)
        errx(1, "threads");
}

static int open_device(void)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        err(1, "/dev/fuse");
    return fd;
}

static void raise_read_ahead(const struct stat *st)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
             (unsigned)(st->st_dev >> 8 & 0xfff), (unsigned)(st->st_dev & 0xff));
    fd = open(path, O_WRONLY);
    if (fd >= 0 && write(fd, "1024", 4) < 0)
        warn("%s", path);
}

int main(int argc, char **argv)
{
    uint32_t wanted = 4;
    struct mount_welcome w;
    struct stat st;
    char options[128];
    struct pollfd ends[2];

    if (argc < 4 || pipe(over) < 0)
        errx(2, "fuse-pump SOCKET NAME MOUNTPOINT [LANES]");
    if (argc > 4) {
        plain = strcmp(argv[4], "one") == 0;
        wanted = plain ? 1 : (uint32_t)atoi(argv[4]);
    }
    lanes[0] = (struct lane){open_device(), dial(argv[1], argv[2], 0, &w)};
    snprintf(options, sizeof(options),
             "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
             lanes[0].device);
    if (mount("hostfs", argv[3], "fuse.hostfs",
              MS_NODEV | MS_NOSUID | (le32toh(w.flags) & MOUNT_READ_ONLY ? MS_RDONLY : 0),
              options) < 0)
        err(1, "mounting");
    run(&lanes[0]);
    if (stat(argv[3], &st) < 0) /* the kernel has its answer to FUSE_INIT after that */
        err(1, "the first stat");
    if (!plain)
        raise_read_ahead(&st);
    for (uint32_t i = 1; i < wanted && i < le32toh(w.lanes); i++) {
        uint32_t first = (uint32_t)lanes[0].device;

        lanes[i] = (struct lane){open_device(), dial(argv[1], argv[2], i, &w)};
        if (ioctl(lanes[i].device, FUSE_DEV_IOC_CLONE, &first) < 0)
            err(1, "FUSE_DEV_IOC_CLONE");
        run(&lanes[i]);
    }
    puts("mounted");
    fflush(stdout);
    ends[0] = (struct pollfd){.fd = 0, .events = POLLIN};
    ends[1] = (struct pollfd){.fd = over[0], .events = POLLIN};
    poll(ends, 2, -1);
    _exit(0); /* with its threads */
}
