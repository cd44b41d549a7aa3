/*
 * A host that lies (mount_liar.h) to a real mount: this machine's kernel, the runtime's own lanes,
 * and a program that uses the mount. The input is a byte of flags, a byte with the number of the
 * program's calls, a byte for each, and then what the host says. Needs root and /dev/fuse;
 * otherwise it says so and ends with SKIPPED.
 *
 * Every call must return; a dead mount answers EIO; and the kernel must not complain.
 */
#include "base/file.h"
#include "base/mem.h"
#include "enclave/mount_fuse.h"
#include "enclave/mount_lane.h"
#include "mount_liar.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SKIPPED      77 /* exit status, which tools/fuzz knows */
#define POINT        "/mnt/lies"
#define TAINT_BAD    (1u << 7 | 1u << 9 | 1u << 14) /* an oops, a warning, a lockup */
#define CALLS_MAX    24
#define ANSWERS_LATE 4 /* calls that may still get the host's word while a mount dies */

enum {
    END_IN_ORDER = 1,
    LIE_AT_ONCE = 2,
    READ_ONLY = 4
};

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t pages[256 * 1024];

/* ---- a program ---- */

static int call_open(const char *name, int flags)
{
    AUTO_FREE char *path = xasprintf(POINT "/%s", name);

    return open(path, flags | O_CLOEXEC, 0644);
}

static void call_read(void)
{
    AUTO_FD int fd = call_open("f1", O_RDONLY);

    (void)!pread(fd, pages, sizeof(pages), 0);
    (void)!pread(fd, pages, 100, 1ll << 62);
    (void)!pread(fd, pages, 100, INT64_MAX - 100);
}

static void call_write(void)
{
    AUTO_FD int fd = call_open("f1", O_RDWR);

    (void)!pwrite(fd, pages, sizeof(pages), 3000);
    (void)!pwrite(fd, pages, 10, 1 << 20);
    fsync(fd);
    (void)!ftruncate(fd, 10);
}

static void call_append(void)
{
    AUTO_FD int fd = call_open("f2", O_WRONLY | O_APPEND | O_DSYNC);

    (void)!write(fd, pages, 5000);
}

static void call_direct(void)
{
    AUTO_FD int fd = call_open("f1", O_RDWR | O_DIRECT);
    void *page = aligned_alloc(4096, 16384);

    memset(page, 1, 16384);
    (void)!pwrite(fd, page, 16384, 0);
    (void)!pread(fd, page, 16384, 0);
    free(page);
}

/* A fault in the mapping is EFAULT for a system call, which reads or writes it for us. */
static void call_map(void)
{
    AUTO_FD int fd = call_open("f1", O_RDWR), pipe_in = -1, pipe_out = -1;
    int ends[2];
    char *map;

    map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return;
    pipe_in = ends[0];
    pipe_out = ends[1];
    (void)!write(pipe_out, map, 4096);
    (void)!read(pipe_in, map + 4096, 100);
    (void)!read(pipe_in, map, 100);
    msync(map, 8192, MS_SYNC);
    munmap(map, 8192);
}

static void call_list(void)
{
    AUTO_FD int fd = call_open(".", O_RDONLY | O_DIRECTORY);

    /* A directory may have no end. */
    for (int i = 0; i < 20 && getdents64(fd, pages, sizeof(pages)) > 0; i++)
        ;
}

static void call_create(void)
{
    AUTO_FD int fd = call_open("new", O_RDWR | O_CREAT | O_TRUNC);

    (void)!write(fd, pages, 100);
    unlink(POINT "/new");
}

static void call_names(void)
{
    mkdir(POINT "/new", 0755);
    rmdir(POINT "/d1");
    rename(POINT "/f1", POINT "/f2");
    rename(POINT "/f1", POINT "/d1/x");
    link(POINT "/f1", POINT "/new2");
    (void)!symlink("f1", POINT "/new3");
    mknod(POINT "/new4", S_IFIFO | 0600, 0);
}

static void call_links(void)
{
    char target[100];
    struct stat st;

    (void)!readlink(POINT "/l1", target, sizeof(target));
    stat(POINT "/l1", &st);
    stat(POINT "/r1", &st);
    stat(POINT "/d1/d1/d1/l1/f", &st);
}

static void call_attributes(void)
{
    struct statvfs vfs;
    struct stat st;

    stat(POINT "/f1", &st);
    lstat(POINT "/absent", &st);
    chmod(POINT "/f1", 0600);
    (void)!chown(POINT "/f1", 1, 1);
    utimensat(AT_FDCWD, POINT "/f1", NULL, 0);
    statvfs(POINT, &vfs);
}

static void call_xattrs(void)
{
    getxattr(POINT "/f1", "user.a", pages, 100);
    getxattr(POINT "/f1", "user.a", NULL, 0);
    listxattr(POINT "/f1", (char *)pages, sizeof(pages));
    setxattr(POINT "/f1", "user.b", "x", 1, 0);
    removexattr(POINT "/f1", "user.b");
}

static void call_ranges(void)
{
    AUTO_FD int fd = call_open("f1", O_RDWR), other = call_open("f3", O_RDWR);

    (void)!fallocate(fd, 0, 0, 10000);
    (void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
    lseek(fd, 0, SEEK_HOLE);
    lseek(fd, 0, SEEK_DATA);
    (void)!copy_file_range(fd, NULL, other, NULL, 4096, 0);
    flock(fd, LOCK_EX | LOCK_NB);
    syncfs(fd);
}

static void call_execute(void)
{
    AUTO_FD int fd = call_open("d1/f1", O_RDONLY);

    posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    readahead(fd, 0, 1 << 20);
    access(POINT "/f1", X_OK);
}

static void (*const calls[])(void) = {
    call_read,  call_write, call_append,     call_direct, call_map,    call_list,   call_create,
    call_names, call_links, call_attributes, call_xattrs, call_ranges, call_execute};

/*
 * The program is a process of its own: one that waits for a page of the mount keeps the lanes from
 * changing the memory that they share with it, and they are to answer it. It ends with us.
 */
static int program_fd;

static void be_program(int fd)
{
    uint8_t wanted[CALLS_MAX];
    ssize_t n;

    while ((n = recv(fd, wanted, sizeof(wanted), 0)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            calls[wanted[i] % ARRAY_LEN(calls)]();
        if (send(fd, "", 1, MSG_NOSIGNAL) != 1)
            break;
    }
    _exit(0);
}

static void start_program(void)
{
    int pair[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 || (pid = fork()) < 0)
        abort();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(pair[0]);
        be_program(pair[1]);
    }
    close(pair[1]);
    program_fd = pair[0];
}

/* ---- a mount ---- */

struct scene {
    int cancel_fd, fuse[LIAR_LANES], ours[LIAR_LANES], theirs[LIAR_LANES];
    struct mount_lanes lanes;
    struct mount_lane *lane[LIAR_LANES];
    struct liar liar;
};

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    abort();
}

static void start_lane(struct scene *s, int i)
{
    must(mount_lane_start(&s->lanes, s->fuse[i], s->ours[i], &s->lane[i], NULL) == 0, "a lane");
    s->fuse[i] = s->ours[i] = -1;
}

/* As mounts.c does: the other lanes start when FUSE_INIT has its answer. */
static void set_up(struct scene *s, uint8_t flags, struct reader script)
{
    struct pollfd p[2];

    *s = (struct scene){.cancel_fd = eventfd(0, EFD_CLOEXEC)};
    for (int i = 0; i < LIAR_LANES; i++) {
        int pair[2];

        must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
        s->ours[i] = pair[0];
        s->theirs[i] = pair[1];
        must(fd_set_nonblock(pair[0], NULL) == 0, "a non-blocking socket");
    }
    s->fuse[0] = mount_fuse_open(NULL);
    must(s->fuse[0] >= 0, "/dev/fuse");
    must(mount_fuse_attach(s->fuse[0], "lies", POINT, flags & READ_ONLY, NULL) == 0, "mounting");
    for (int i = 1; i < LIAR_LANES; i++)
        must((s->fuse[i] = mount_fuse_clone(s->fuse[0], NULL)) >= 0, "cloning");
    must(mount_lanes_init(&s->lanes, "lies", s->cancel_fd, NULL) == 0, "lanes");
    liar_start(&s->liar, s->theirs, flags & LIE_AT_ONCE, script);
    start_lane(s, 0);
    p[0] = (struct pollfd){.fd = s->lanes.ready_fd, .events = POLLIN};
    p[1] = (struct pollfd){.fd = s->lanes.over_fd, .events = POLLIN};
    while (poll(p, ARRAY_LEN(p), -1) < 0)
        must(errno == EINTR, "poll");
    if (p[0].revents)
        for (int i = 1; i < LIAR_LANES; i++)
            start_lane(s, i);
}

static void take_down(struct scene *s, bool in_order)
{
    mount_lanes_go_quiet(&s->lanes);
    if (in_order)
        mount_lanes_finish(&s->lanes);
    else
        mount_lanes_abort(&s->lanes);
    for (int i = 0; i < LIAR_LANES; i++) {
        mount_lane_join(s->lane[i]);
        fd_close(&s->fuse[i]);
        fd_close(&s->ours[i]);
    }
    mount_lanes_free(&s->lanes);
    must(mount_fuse_detach(POINT, NULL) == 0, "unmounting");
    liar_join(&s->liar);
    fd_close(&s->cancel_fd);
}

/* ---- what must hold ---- */

static void run_program(struct slice wanted)
{
    uint8_t done;
    ssize_t n;

    if (wanted.len == 0)
        return;
    must(send(program_fd, wanted.ptr, wanted.len, MSG_NOSIGNAL) == (ssize_t)wanted.len, "send");
    do
        n = recv(program_fd, &done, 1, 0);
    while (n < 0 && errno == EINTR);
    must(n == 1, "the program ended");
}

/* Names that nobody has asked for yet, and so no cache has. */
static void check_dead(void)
{
    static unsigned number;
    int late = 0;

    for (int i = 0; i < 2 * ANSWERS_LATE; i++) {
        AUTO_FREE char *path = xasprintf(POINT "/absent%u", number++);
        struct stat st;

        if (lstat(path, &st) == 0 || errno != EIO)
            must(++late <= ANSWERS_LATE, "a dead mount does not answer EIO");
    }
}

static unsigned long taint(void)
{
    FILE *f = fopen("/proc/sys/kernel/tainted", "re");
    unsigned long bits = 0;

    if (f && fscanf(f, "%lu", &bits) != 1)
        bits = 0;
    if (f)
        fclose(f);
    return bits & TAINT_BAD;
}

/* ---- libFuzzer ---- */

static void skip(const char *why)
{
    printf("skipped: %s\n", why);
    fflush(stdout);
    _exit(SKIPPED);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (geteuid() != 0)
        skip("a real mount needs root");
    if (access("/dev/fuse", R_OK | W_OK) < 0)
        skip("this machine has no /dev/fuse");
    /* All of it goes with this process, however that ends. */
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/mnt", "tmpfs", 0, NULL) < 0)
        skip("no mount namespace of its own");
    start_program();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reader r = reader_of(slice_of(data, size));
    unsigned long before = taint();
    struct slice wanted;
    struct scene s;
    uint8_t flags, count;

    if (!reader_u8(&r, &flags) || !reader_u8(&r, &count) ||
        !reader_take(&r, count % (CALLS_MAX + 1), &wanted))
        return -1;
    set_up(&s, flags, r);
    run_program(wanted);
    if (atomic_load(&s.lanes.dead))
        check_dead();
    take_down(&s, flags & END_IN_ORDER);
    must(taint() == before, "the kernel complained: see its log");
    return 0;
}
