/*
 * FUSE requests of a hostile enclave, answered over a real directory. The input is a row of
 * messages: opcode and node id (a byte each), length of the rest (2 bytes), the rest. Opcode 255
 * stands for a rest that brings its own header.
 */
#include "base/file.h"
#include "base/log.h"
#include "hostfs/session.h"
#include "vsock/mountproto.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define FILE_MAX   (256 * 1024) /* of what a run may write */
#define OWN_HEAD   255
#define WRITE_HEAD (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

static char dir[] = "/tmp/capsule-fuzz-hostfs-XXXXXX";
static int work_dir = -1, proc = -1;
static uint8_t space[MOUNT_IO_MAX];
static int pipe_ends[2];

static void clean_up(void)
{
    tree_remove(dir, NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const struct rlimit limit = {FILE_MAX, RLIM_INFINITY};

    (void)argc;
    (void)argv;
    log_setup(LOG_ERROR, LOG_TEXT);
    if (!mkdtemp(dir) || setrlimit(RLIMIT_FSIZE, &limit) < 0)
        abort();
    work_dir = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (work_dir < 0 || proc < 0 || pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) < 0 ||
        fcntl(pipe_ends[1], F_SETPIPE_SZ, MOUNT_IO_MAX) < 0)
        abort();
    atexit(clean_up);
    return 0;
}

struct answers {
    unsigned int count;
    uint64_t unique;
};

static int check_answer(void *arg, const struct iovec *iov, int count)
{
    const struct fuse_out_header *head = iov[0].iov_base;
    struct answers *a = arg;
    size_t len = 0;

    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    if (a->count++ > 0 || head->len != len || len > MOUNT_MESSAGE_MAX || head->error > 0 ||
        head->error < -511 || head->unique != a->unique || (head->error && len != sizeof(*head)))
        abort();
    return 0;
}

/* As many bytes as were promised are in the pipe, and no more. */
static int check_piped(void *arg, const void *header, size_t header_len, size_t len)
{
    const struct iovec iov[2] = {{(void *)(uintptr_t)header, header_len}, {space, len}};
    size_t got = 0;
    ssize_t n;

    while ((n = read(pipe_ends[0], space, sizeof(space))) > 0)
        got += (size_t)n;
    if (got != len || len > sizeof(space))
        abort();
    return check_answer(arg, iov, 2);
}

static void wait_without_care(void *arg)
{
    (void)arg;
}

/* The contents of a WRITE, as a lane may bring them; nothing is left at their place. */
static size_t put_into_pipe(uint8_t *contents, size_t len)
{
    if (write(pipe_ends[1], contents, len) != (ssize_t)len)
        abort();
    memset(contents, 0xa5, len);
    return len;
}

static void send_message(struct hostfs *fs, uint8_t *message, size_t len)
{
    struct fuse_in_header head;
    struct answers answers = {0};
    struct hostfs_request request = {.send = check_answer,
                                     .send_piped = check_piped,
                                     .may_wait = wait_without_care,
                                     .arg = &answers,
                                     .pipe = {pipe_ends[0], pipe_ends[1]},
                                     .space = space};
    uint8_t left;
    bool silent;

    memcpy(&head, message, sizeof(head));
    head.len = (uint32_t)len;
    memcpy(message, &head, sizeof(head));
    answers.unique = head.unique;
    silent = head.opcode == FUSE_FORGET || head.opcode == FUSE_BATCH_FORGET ||
             head.opcode == FUSE_INTERRUPT || head.opcode == FUSE_NOTIFY_REPLY;
    if (head.opcode == FUSE_WRITE && len > WRITE_HEAD && head.unique % 4 == 0)
        request.piped = put_into_pipe(message + WRITE_HEAD, len - WRITE_HEAD);
    hostfs_answer(fs, message, len, &request);
    if (answers.count != !silent || request.piped > 0 || read(pipe_ends[0], &left, 1) != -1)
        abort();
}

static void send_init(struct hostfs *fs)
{
    struct {
        struct fuse_in_header head;
        struct fuse_init_in init;
    } m = {.head = {.opcode = FUSE_INIT, .unique = 1},
           .init = {
               .major = FUSE_KERNEL_VERSION, .minor = 38, .flags = ~0u, .max_readahead = 1 << 20}};

    send_message(fs, (uint8_t *)&m, sizeof(m));
}

/* A message that lies alone in memory, so that a look past its end shows. */
static size_t next_message(struct hostfs *fs, const uint8_t *data, size_t size, unsigned int number)
{
    size_t n = data[2] | (size_t)data[3] << 8;
    struct fuse_in_header head = {
        .opcode = data[0], .nodeid = data[1], .unique = number * 2, .uid = 0, .gid = 0};
    size_t at = data[0] == OWN_HEAD ? 0 : sizeof(head);
    uint8_t *message;

    n = n < size - 4 ? n : size - 4;
    if (at + n >= sizeof(head)) {
        message = xmalloc(at + n);
        memcpy(message, &head, at);
        memcpy(message + at, data + 4, n);
        send_message(fs, message, at + n);
        free(message);
    }
    return 4 + n;
}

static int open_tree_for_run(void)
{
    AUTO_FREE char *served = xasprintf("%s/served", dir), *link = xasprintf("%s/served/out", dir);
    AUTO_FREE char *outside = xasprintf("%s/outside", dir), *file = xasprintf("%s/served/f", dir);
    AUTO_FD int fd = -1;

    if (mkdir(served, 0700) < 0 || mkdir(outside, 0700) < 0 || symlink("../outside", link) < 0 ||
        (fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) < 0 || write(fd, "text", 4) != 4)
        abort();
    return open(served, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Nothing came out of the directory: what lies beside it can still be removed as empty. */
static void check_outside(void)
{
    AUTO_FREE char *served = xasprintf("%s/served", dir), *outside = xasprintf("%s/outside", dir);

    if (rmdir(outside) < 0 || tree_remove(served, NULL) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hostfs_config config = {.root_fd = open_tree_for_run(), .files_max = 32};
    struct hostfs *fs = hostfs_new(&config, NULL);

    signal(SIGXFSZ, SIG_IGN); /* libFuzzer sets its own after LLVMFuzzerInitialize() */
    if (!fs || fchdir(proc) < 0)
        abort();
    send_init(fs);
    for (unsigned int number = 1; size >= 4; number++) {
        size_t used = next_message(fs, data, size, number);

        data += used;
        size -= used;
    }
    hostfs_free(fs);
    if (fchdir(work_dir) < 0)
        abort();
    check_outside();
    return 0;
}
