#include "launch/sandbox_enter.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "launch/sandbox_filter.h"
#include "launch/sandbox_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HOSTNAME "capsule"
#define FD_SYNC  (SANDBOX_FD_DOOR + 1) /* until the runtime is executed */

/*
 * What PID 1 and, after it, the app may keep: what programs that start as root use on their own
 * files and processes. CAP_NET_ADMIN, over a network of only loopback, is for the runtime.
 */
static const unsigned char kept_caps[] = {
    CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,           CAP_FSETID,  CAP_KILL,       CAP_SETGID,
    CAP_SETUID, CAP_SETPCAP,      CAP_NET_BIND_SERVICE, CAP_NET_RAW, CAP_SYS_CHROOT, CAP_NET_ADMIN,
};

static void send_report(int fd, const struct enter_report *r)
{
    while (send(fd, r, sizeof(*r), MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

static _Noreturn void give_up(int fd, struct enter_report *r)
{
    r->what = ENTER_FAILED;
    send_report(fd, r);
    _exit(127);
}

/* Tells the parent where we are and waits for its word; the parent's death ends us. */
static void wait_for_parent(int fd, struct enter_report *r)
{
    char byte;
    ssize_t n;

    r->what = ENTER_WAITING;
    send_report(fd, r);
    do
        n = recv(fd, &byte, 1, 0);
    while (n < 0 && errno == EINTR);
    if (n != 1)
        _exit(127);
}

static int open_place(const char *path, int *fd, struct error *err)
{
    *fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*fd >= 0)
        return 0;
    error_sys(err, errno, "opening %s for the sandbox", path);
    return error_hint(err, "every directory above it must be open to its owner: without the "
                           "machine's capabilities, root too is bound by the permission bits");
}

/* The first `count` of the CPUs that we may use, from `offset` on and around. */
static int limit_cpus(const struct enter_plan *plan, struct error *err)
{
    cpu_set_t have, want;
    int order[CPU_SETSIZE];
    unsigned int n = 0;

    if (sched_getaffinity(0, sizeof(have), &have) < 0)
        return errno == EINVAL ? 0 : error_sys(err, errno, "reading the CPUs of the sandbox");
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &have))
            order[n++] = cpu;
    if (plan->cpu_count >= n)
        return 0;
    CPU_ZERO(&want);
    for (unsigned int i = 0; i < plan->cpu_count; i++)
        CPU_SET(order[(plan->cpu_offset + i) % n], &want);
    if (sched_setaffinity(0, sizeof(want), &want) < 0)
        return error_sys(err, errno, "setting the CPUs of the sandbox");
    return 0;
}

static int raise_loopback(struct error *err)
{
    struct ifreq ifr = {0};
    AUTO_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    memcpy(ifr.ifr_name, "lo", sizeof("lo"));
    ifr.ifr_flags = IFF_UP;
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
        return error_sys(err, errno, "raising the sandbox's loopback interface");
    return 0;
}

/* What a process inherits without asking: session, terminal, keys, limits. */
static int forget_parent(struct error *err)
{
    /* A core file of the app would end up with the machine's crash collector. */
    const struct rlimit no_core = {0, 0};

    if (setsid() < 0)
        return error_sys(err, errno, "starting the sandbox's session");
    /* The shell's session keyring; a kernel without keys (ENOSYS) has none to leak. */
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
        return error_sys(err, errno, "leaving the session keyring");
    if (setrlimit(RLIMIT_CORE, &no_core) < 0)
        return error_sys(err, errno, "turning core files off in the sandbox");
    umask(022);
    return 0;
}

_Static_assert(FD_SYNC + 1 == SANDBOX_FD_FUSE, "descriptors of FUSE follow");

/* As launcher.h says, with `sync` at 6, closed on exec; nothing else stays open. */
static int place_fds(const struct enter_plan *plan, int carrier, int *sync, struct error *err)
{
    int from[SANDBOX_FD_FUSE + SANDBOX_FUSE_MAX], null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int count = SANDBOX_FD_FUSE;

    if (null < 0)
        return error_sys(err, errno, "opening /dev/null in the sandbox");
    from[0] = null;
    from[1] = from[2] = plan->console_fd;
    from[SANDBOX_FD_CARRIER] = carrier >= 0 ? carrier : null;
    from[SANDBOX_FD_LAUNCH] = plan->launch_fd;
    from[SANDBOX_FD_DOOR] = plan->door_fd >= 0 ? plan->door_fd : null;
    from[FD_SYNC] = *sync;
    for (size_t i = 0; i < plan->fuse->count; i++)
        for (size_t lane = 0; lane < plan->fuse->lanes; lane++)
            from[count++] = plan->fuse->places[i].fds[lane];
    /* First out of each other's way. The sync descriptor moves too: failures are told there. */
    for (int i = 0; i < count; i++) {
        from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, count);
        if (from[i] < 0)
            return error_sys(err, errno, "placing the sandbox's descriptors");
    }
    *sync = from[FD_SYNC];
    for (int i = 0; i < count; i++)
        if (dup3(from[i], i, i == FD_SYNC ? O_CLOEXEC : 0) < 0)
            return error_sys(err, errno, "placing the sandbox's descriptors");
    *sync = FD_SYNC;
    if (syscall(SYS_close_range, (unsigned int)count, ~0u, 0) < 0)
        return error_sys(err, errno, "closing the shell's descriptors in the sandbox");
    return 0;
}

static bool is_kept(unsigned int cap)
{
    for (size_t i = 0; i < ARRAY_LEN(kept_caps); i++)
        if (kept_caps[i] == cap)
            return true;
    return false;
}

/*
 * The filter goes in between: it needs CAP_SYS_ADMIN. The bounding set is what counts at execve():
 * uid 0 gets all of it.
 */
static int drop_power(struct error *err)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    for (unsigned int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (!is_kept(cap) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return error_sys(err, errno, "dropping capability %u in the sandbox", cap);
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return error_sys(err, errno, "dropping ambient capabilities in the sandbox");
    if (sandbox_filter_install(err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_LEN(kept_caps); i++)
        data[0].permitted |= 1u << kept_caps[i];
    data[0].effective = data[0].permitted;
    if (syscall(SYS_capset, &head, data) < 0)
        return error_sys(err, errno, "dropping capabilities in the sandbox");
    return 0;
}

static int open_places(const struct enter_plan *plan, struct mount_places *places,
                       struct error *err)
{
    if (open_place(plan->rootfs, &places->rootfs, err) < 0 ||
        open_place(plan->mount_point, &places->mount_point, err) < 0 ||
        open_place(plan->disk, &places->disk, err) < 0)
        return -1;
    return plan->carrier ? open_place(plan->carrier, &places->carrier, err) : 0;
}

/* From "still outside in all but name" to "root of the sandbox, in its own view of files". */
static int move_in(const struct enter_plan *plan, struct enter_report *r, int *carrier)
{
    struct mount_places places = {.rootfs = -1, .mount_point = -1, .disk = -1, .carrier = -1};

    /* Here for the time up to the change of identity, which clears it, and once more after that. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return error_sys(&r->err, errno, "tying the sandbox to its launcher");
    if (open_places(plan, &places, &r->err) < 0 || fuse_plan_open(plan->fuse, &r->err) < 0)
        return -1;
    wait_for_parent(plan->sync_fd, r);
    if (idmap_enter(plan->map, &r->err) < 0)
        return -1;
    /* After the change of identity, which clears it; the next word proves the parent still lives.
     */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return error_sys(&r->err, errno, "tying the sandbox to its launcher");
    /* Now, so that our control group is the root of what the namespace shows. */
    if (unshare(CLONE_NEWCGROUP) < 0) {
        int sys = errno;

        error_sys(&r->err, sys, "making a control group namespace");
        return idmap_hint(&r->err, sys);
    }
    if (sandbox_mount_all(plan, &places, carrier, &r->disk_upper, &r->err) < 0)
        return -1;
    for (size_t i = 0; i < plan->fuse->count; i++)
        r->mounts[i] = plan->fuse->places[i].fs;
    wait_for_parent(plan->sync_fd, r);
    return 0;
}

_Noreturn void sandbox_enter(const struct enter_plan *plan)
{
    static char *const no_env[] = {NULL};
    struct enter_report r = {0};
    int carrier = -1, sync = plan->sync_fd;

    proc_reset_signals();
    if (move_in(plan, &r, &carrier) < 0)
        give_up(sync, &r);
    if (sethostname(HOSTNAME, strlen(HOSTNAME)) < 0) {
        error_sys(&r.err, errno, "naming the sandbox");
        give_up(sync, &r);
    }
    if (raise_loopback(&r.err) < 0 || limit_cpus(plan, &r.err) < 0 || forget_parent(&r.err) < 0 ||
        place_fds(plan, carrier, &sync, &r.err) < 0 || drop_power(&r.err) < 0)
        give_up(sync, &r);
    execve(plan->argv[0], plan->argv, no_env);
    error_sys(&r.err, errno, "executing the image's %s", plan->argv[0]);
    if (errno == ENOENT || r.err.sys == ENOENT)
        error_hint(&r.err, "the image was not amended: build it with capsule-cli build");
    give_up(sync, &r);
}
