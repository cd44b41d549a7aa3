#include "launch/sandbox.h"

#include "base/file.h"
#include "base/proc.h"
#include "launch/sandbox_cgroup.h"
#include "launch/sandbox_console.h"
#include "launch/sandbox_enter.h"
#include "launch/sandbox_image.h"
#include "launch/sandbox_run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define RUNTIME "/sbin/capsule-runtime"

struct launched {
    pid_t pid;
    int pidfd;
    bool reaped;
    int status;
    struct idmap map;
    struct sandbox_image image;
    struct sandbox_run run;
    struct cgroup_set groups;
    struct console console;
};

/* ---- before the process exists ---- */

/* A copy of launch.json that nobody can change, not even through /proc/self/fd. */
static int seal_launch(const struct buf *text, struct error *err)
{
    AUTO_FD int fd = memfd_create("launch.json", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int out;

    if (fd < 0)
        return error_sys(err, errno, "making a memory file for launch.json");
    if (fd_write_all(fd, text->ptr, text->len, "the copy of launch.json", err) < 0)
        return -1;
    if (lseek(fd, 0, SEEK_SET) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
        return error_sys(err, errno, "sealing the copy of launch.json");
    out = fd;
    fd = -1;
    return out;
}

/* The enclave's root gets to the sockets by its group: as owner it could change them. */
static int share_carrier(int fd, const char *path, gid_t group, struct error *err)
{
    int again = dup(fd), rc = 0;
    struct dirent *e;
    DIR *dir;

    dir = again < 0 ? NULL : fdopendir(again);
    if (!dir) {
        error_sys(err, errno, "listing the carrier directory %s", path);
        fd_close(&again);
        return -1;
    }
    while (rc == 0 && (e = readdir(dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            (fchownat(fd, e->d_name, (uid_t)-1, group, AT_SYMLINK_NOFOLLOW) < 0 ||
             fchmodat(fd, e->d_name, 0660, 0) < 0))
            rc = error_sys(err, errno, "sharing %s/%s with the enclave", path, e->d_name);
    closedir(dir);
    if (rc == 0 && (fchown(fd, (uid_t)-1, group) < 0 || fchmod(fd, 0710) < 0))
        rc = error_sys(err, errno, "sharing %s with the enclave", path);
    return rc;
}

static int give_carrier(const char *path, const struct idmap *map, struct error *err)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_sys(err, errno, "opening the carrier directory %s", path);
    if (st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return error_set(err, ERR_DENIED, "the carrier directory %s is not private", path);
    return map->root_uid == geteuid() ? 0 : share_carrier(fd, path, map->root_gid, err);
}

static int open_image(const struct launch_request *req, const char *cache, struct launched *l,
                      struct error *err)
{
    AUTO_FD int own = -1;
    int fd = req->eif_fd;

    if (fd < 0) {
        own = open(req->eif_path, O_RDONLY | O_CLOEXEC);
        if (own < 0)
            return error_sys(err, errno, "opening %s", req->eif_path);
        fd = own;
    }
    return sandbox_image_open(cache, fd, req->eif_path, &l->map, &l->image, err);
}

static void make_groups(const struct launch_request *req, struct launched *l)
{
    const struct cgroup_limits limits = {req->memory_mb, req->cpu_count};
    char missing[64];

    cgroup_make(&cgroup_of_self, l->run.name, &limits, &l->groups, missing, sizeof(missing));
    if (missing[0])
        log_info("sandbox",
                 "this machine does not let this user set some limits; memory and CPU of the app "
                 "are bounded only as the file systems and CPU affinity do",
                 kv_str("missing", missing + 1));
}

static void warn_mode(const struct launch_request *req, const struct launched *l, const char *why)
{
    log_warn("sandbox", "NOT CONFIDENTIAL: the app runs in namespaces of this machine, whose users "
                        "and kernel can read and change all of it; attestations are signed by a "
                        "development root. For development only");
    if (l->map.single)
        log_info("sandbox",
                 "one user id only: files of the image all belong to root, and programs that "
                 "change to another user (runtime.user, su, nginx workers) fail",
                 kv_str("reason", why));
    if (req->debug)
        log_debug("sandbox", "debug mode changes nothing here");
}

/* ---- the process ---- */

static pid_t clone_process(int *pidfd)
{
    struct clone_args args = {
        .flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS |
                 CLONE_NEWIPC | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
    };

    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

/* Waits until the child waits for us, or has been executed. Returns 1 for waiting, 0, or -1. */
static int hear(int fd, struct enter_report *r, struct error *err)
{
    ssize_t n;

    do
        n = recv(fd, r, sizeof(*r), 0);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return 0;
    if (n != (ssize_t)sizeof(*r))
        return error_set(err, ERR_INTERNAL, "the sandbox's first process said nothing sensible");
    if (r->what == ENTER_WAITING)
        return 1;
    if (err)
        *err = r->err;
    return -1;
}

static int tell(int fd, struct error *err)
{
    if (send(fd, "", 1, MSG_NOSIGNAL) == 1)
        return 0;
    return error_sys(err, errno, "leading the sandbox's first process");
}

/* A group that can be made but not entered is as good as none: the delegation ends above it. */
static void limit(struct launched *l)
{
    struct error err = {0};

    if (cgroup_add(&l->groups, l->pid, &err) < 0)
        log_info("sandbox", "the limits of the control groups do not hold",
                 kv_str("reason", err.msg));
}

/* The parent's half of sandbox_enter(). */
static int lead(struct launched *l, int fd, struct error *err)
{
    struct enter_report r = {0};
    int rc = hear(fd, &r, err);

    if (rc == 1) {
        if (idmap_apply(&l->map, l->pid, err) < 0)
            return -1;
        limit(l);
        rc = tell(fd, err) < 0 ? -1 : hear(fd, &r, err);
    }
    if (rc == 1) {
        if (r.disk_upper)
            log_info("sandbox", "files that the app changes go to the disk, without a size limit: "
                                "memory file systems need Linux 6.6 for this");
        for (size_t i = 0; i < ARRAY_LEN(r.mounts); i++)
            fuse_read_ahead(r.mounts[i]);
        rc = tell(fd, err) < 0 ? -1 : hear(fd, &r, err);
        if (rc == 0)
            return 0;
    }
    if (rc >= 0)
        error_set(err, ERR_INTERNAL, "the sandbox's first process died while it was set up");
    return -1;
}

static int spawn(struct launched *l, struct enter_plan *plan, struct error *err)
{
    int pair[2];
    int rc;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_sys(err, errno, "making a socket pair");
    plan->sync_fd = pair[1];
    l->pid = clone_process(&l->pidfd);
    if (l->pid == 0) {
        close(pair[0]);
        sandbox_enter(plan);
    }
    if (l->pid < 0) {
        int sys = errno;

        l->pid = 0;
        fd_close(&pair[0]);
        fd_close(&pair[1]);
        error_sys(err, sys, "making the sandbox's namespaces");
        return idmap_hint(err, sys);
    }
    fd_close(&pair[1]);
    rc = lead(l, pair[0], err);
    fd_close(&pair[0]);
    return rc;
}

#define ARGS_MAX 24 /* without host mounts */

/* The runtime's command line; `text` holds what is made here. */
static void make_argv(const struct launch_request *req, const struct fuse_plan *fuse,
                      char text[3][32], const char **argv)
{
    unsigned int n = 0;

    snprintf(text[0], sizeof(text[0]), "/proc/self/fd/%d", SANDBOX_FD_LAUNCH);
    snprintf(text[1], sizeof(text[1]), "unix:%d:%d", SANDBOX_FD_CARRIER, SANDBOX_FD_DOOR);
    snprintf(text[2], sizeof(text[2]), "%u", (unsigned int)req->cid);
    argv[n++] = RUNTIME;
    argv[n++] = "--config-dir";
    argv[n++] = "/etc/capsule";
    argv[n++] = "--launch";
    argv[n++] = text[0];
    if (req->carrier_dir) {
        argv[n++] = "--carrier";
        argv[n++] = text[1];
    }
    argv[n++] = "--cid";
    argv[n++] = text[2];
    argv[n++] = "--soft-nsm";
    argv[n++] = "--clock";
    argv[n++] = "measure";
    for (int i = 0; i < req->verbosity && i < 2; i++)
        argv[n++] = "-v";
    if (req->log_format == LOG_JSON) {
        argv[n++] = "--log-format";
        argv[n++] = "json";
    }
    for (size_t i = 0; i < fuse->count; i++) {
        argv[n++] = "--mount-fds";
        argv[n++] = fuse->places[i].option;
    }
    argv[n] = NULL;
}

static int run_runtime(const struct launch_request *req, struct launched *l, struct error *err)
{
    AUTO_FREE char *mount_point = xasprintf("%s/mnt", l->run.path);
    AUTO_FREE char *disk = xasprintf("%s/disk", l->run.path);
    AUTO_FD int launch = seal_launch(&l->image.launch, err), console = -1;
    CLEANUP(fuse_plan_free) struct fuse_plan fuse = {0};
    AUTO_FREE const char **argv = xcalloc(ARGS_MAX + 2 * req->mount_count, sizeof(*argv));
    char text[3][32];
    struct enter_plan plan = {
        .map = &l->map,
        .rootfs = l->image.rootfs,
        .mount_point = mount_point,
        .disk = disk,
        .carrier = req->carrier_dir,
        .launch_fd = launch,
        .door_fd = req->carrier_dir ? req->carrier_door : -1,
        .cpu_count = req->cpu_count,
        .cpu_offset = req->cid,
        .fuse = &fuse,
        .argv = (char *const *)(uintptr_t)argv,
    };

    if (launch < 0 || fuse_plan_make(req, SANDBOX_FD_FUSE, &fuse, err) < 0)
        return -1;
    console = console_open(&l->console, err);
    if (console < 0)
        return -1;
    plan.console_fd = console;
    /* Half of the memory for each of /, /run, /tmp and /dev/shm, as the enclave's kernel does. */
    snprintf(plan.size, sizeof(plan.size), "%llu", (unsigned long long)req->memory_mb << 19);
    snprintf(plan.inodes, sizeof(plan.inodes), "%llu", (unsigned long long)req->memory_mb << 7);
    make_argv(req, &fuse, text, argv);
    return spawn(l, &plan, err);
}

/* ---- the launcher's functions ---- */

static int do_nothing(void *arg, struct error *err)
{
    (void)arg;
    (void)err;
    return 0;
}

static int sandbox_probe(struct error *err)
{
    struct idmap map;
    char why[256];

    if (idmap_choose(&map, why, sizeof(why), err) < 0)
        return -1;
    return idmap_call(&map, do_nothing, NULL, err);
}

/* After the end of PID 1, which the kernel announces when all the others are gone. */
static int release(struct launched *l, struct error *err)
{
    struct error later = {0};
    int rc = cgroup_remove(&l->groups, err);

    if (sandbox_run_remove(&l->run, rc == 0 ? err : &later) < 0)
        rc = -1;
    sandbox_image_close(&l->image);
    return rc;
}

static int sandbox_reap(struct launched *l, int *status, struct error *err)
{
    int rc = 0;

    if (!l->reaped) {
        while (waitpid(l->pid, &l->status, 0) < 0)
            if (errno != EINTR)
                return error_sys(err, errno, "reaping the sandbox");
        l->reaped = true;
        rc = release(l, err);
    }
    if (status)
        *status = l->status;
    return rc;
}

static int sandbox_terminate(struct launched *l, struct error *err)
{
    if (!l->reaped && syscall(SYS_pidfd_send_signal, l->pidfd, SIGKILL, NULL, 0) < 0 &&
        errno != ESRCH)
        return error_sys(err, errno, "killing the sandbox");
    return sandbox_reap(l, NULL, err);
}

static void sandbox_free(struct launched *l)
{
    struct error err = {0};

    if (!l)
        return;
    if (l->pid > 0 && sandbox_terminate(l, &err) < 0)
        log_warn("sandbox", "cleaning up failed", kv_str("reason", err.msg));
    if (l->pid == 0 && release(l, &err) < 0)
        log_warn("sandbox", "cleaning up failed", kv_str("reason", err.msg));
    console_close(&l->console);
    fd_close(&l->pidfd);
    free(l);
}

static int start(const struct launch_request *req, struct launched *l, struct error *err)
{
    AUTO_FREE char *cache = NULL;
    char why[256];

    if (req->cpu_count < 1 || req->memory_mb < 64)
        return error_set(err, ERR_INVALID, "the sandbox needs at least 1 CPU and 64 MiB");
    if (idmap_choose(&l->map, why, sizeof(why), err) < 0 || sandbox_cache_dir(&cache, err) < 0)
        return -1;
    warn_mode(req, l, why);
    if (open_image(req, cache, l, err) < 0 || sandbox_run_make(cache, &l->map, &l->run, err) < 0)
        return -1;
    make_groups(req, l);
    if (sandbox_run_note(&l->run, &l->groups, err) < 0 ||
        (req->carrier_dir && give_carrier(req->carrier_dir, &l->map, err) < 0))
        return -1;
    return run_runtime(req, l, err);
}

static int sandbox_start(const struct launch_request *req, struct launched **out, struct error *err)
{
    struct launched *l = xcalloc(1, sizeof(*l));

    l->pidfd = -1;
    l->image = SANDBOX_IMAGE_NONE;
    l->run = SANDBOX_RUN_NONE;
    l->console = CONSOLE_NONE;
    if (start(req, l, err) < 0) {
        console_drain(&l->console);
        sandbox_free(l);
        return error_wrap(err, "starting the sandbox");
    }
    *out = l;
    return 0;
}

static int sandbox_end_fd(const struct launched *l)
{
    return l->pidfd;
}

static int sandbox_console_fd(const struct launched *l)
{
    return l->console.fd;
}

static bool sandbox_console_pump(struct launched *l)
{
    return console_pump(&l->console);
}

static bool sandbox_uses_unix_carrier(void)
{
    return true;
}

static void sandbox_examine(launcher_said *said, void *arg)
{
    struct error why = {0};

    said(arg, "namespaces", "", sandbox_probe(&why) < 0 ? &why : NULL);
    why = (struct error){0};
    said(arg, "host mounts", "", fuse_can_open(&why) < 0 ? &why : NULL);
}

const struct launcher_ops sandbox_launcher = {
    .name = "sandbox",
    .summary = "Linux namespaces on this machine; no VM; not confidential",
    .confidential = false,
    .uses_unix_carrier = sandbox_uses_unix_carrier,
    .probe = sandbox_probe,
    .examine = sandbox_examine,
    .start = sandbox_start,
    .end_fd = sandbox_end_fd,
    .console_fd = sandbox_console_fd,
    .console_pump = sandbox_console_pump,
    .reap = sandbox_reap,
    .terminate = sandbox_terminate,
    .free = sandbox_free,
};
