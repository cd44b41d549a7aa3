#include "hostfs/confine.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"
#include "hostfs/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#define CAP_BIT(cap) (UINT64_C(1) << (cap))
/* The enclave's kernel has checked permissions; ours must not check them again for one user. */
#define FILE_CAPS                                                                                  \
    (CAP_BIT(CAP_CHOWN) | CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_DAC_READ_SEARCH) |               \
     CAP_BIT(CAP_FOWNER) | CAP_BIT(CAP_FSETID))
/* For setfsuid() and setfsgid(): the filter lets through no other change of identity. */
#define OWNER_CAPS (CAP_BIT(CAP_SETUID) | CAP_BIT(CAP_SETGID))

#define RESERVED_FILES 128 /* lanes, logs, and what a request opens for a moment */
#define FILES_MIN      256

static int write_map(const char *path, const char *text, struct error *err)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return error_sys(err, errno, "setting up a user namespace (%s)", path);
    return 0;
}

/* Our user becomes user 0 of a namespace in which nobody else exists. */
static int take_user_namespace(struct error *err)
{
    char uid[32], gid[32];

    snprintf(uid, sizeof(uid), "0 %u 1", (unsigned int)geteuid());
    snprintf(gid, sizeof(gid), "0 %u 1", (unsigned int)getegid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) {
        error_sys(err, errno, "making a user namespace for a host mount's server");
        return error_hint(err, "a host mount is served from a process that sees nothing else: let "
                               "ordinary users make user namespaces, or run this as root");
    }
    if (write_map("/proc/self/setgroups", "deny", err) < 0 ||
        write_map("/proc/self/gid_map", gid, err) < 0)
        return -1;
    return write_map("/proc/self/uid_map", uid, err);
}

static int take_namespaces(bool root, struct error *err)
{
    if (!root)
        return take_user_namespace(err);
    if (unshare(CLONE_NEWNS) < 0)
        return error_sys(err, errno, "making a mount namespace for a host mount's server");
    return 0;
}

static int clone_mount(int dir, const char *path, const char *what, struct error *err)
{
    unsigned int flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    int fd = open_tree(dir, path, flags);

    return fd < 0 ? error_sys(err, errno, "taking %s into a namespace", what) : fd;
}

/* What a mount has and may not lose: in a user namespace its flags are locked. */
static unsigned long kept_flags(void)
{
    struct statvfs st;
    unsigned long flags = 0;

    if (statvfs(".", &st) < 0)
        return 0;
    flags |= st.f_flag & ST_RDONLY ? MS_RDONLY : 0;
    flags |= st.f_flag & ST_NOATIME ? MS_NOATIME : 0;
    flags |= st.f_flag & ST_NODIRATIME ? MS_NODIRATIME : 0;
    flags |= st.f_flag & ST_RELATIME ? MS_RELATIME : 0;
    return flags;
}

/* The working directory becomes "/", on a mount of its own, and every other mount goes. */
static int keep_only_here(bool read_only, struct error *err)
{
    unsigned long flags = MS_REMOUNT | MS_BIND | MS_NODEV | MS_NOSUID | MS_NOEXEC;
    AUTO_FD int tree = -1;

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return error_sys(err, errno, "separating mounts");
    tree = clone_mount(AT_FDCWD, ".", "a host mount's directory", err);
    if (tree < 0)
        return -1;
    if (move_mount(tree, "", AT_FDCWD, ".", MOVE_MOUNT_F_EMPTY_PATH) < 0 || fchdir(tree) < 0 ||
        mount(NULL, ".", NULL, flags | kept_flags() | (read_only ? MS_RDONLY : 0), NULL) < 0)
        return error_sys(err, errno, "mounting a host mount's directory in its namespace");
    if (syscall(SYS_pivot_root, ".", ".") < 0) {
        error_sys(err, errno, "changing to a host mount's directory");
        return error_hint(err, "a machine that runs from its initial ramdisk has no root that can "
                               "be changed");
    }
    if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return error_sys(err, errno, "leaving the machine's root");
    return 0;
}

/* The working directory becomes "/", with no other mount below or above. Goes to /proc/self/fd. */
static int take_mounts(bool root, bool read_only, struct confined *out, struct error *err)
{
    AUTO_FD int proc = -1;

    if (take_namespaces(root, err) < 0)
        return -1;
    /* A mount of its own, so that ".." does not lead out of it. */
    proc = clone_mount(AT_FDCWD, "/proc/self/fd", "/proc/self/fd", err);
    if (proc < 0 || keep_only_here(read_only, err) < 0)
        return -1;
    out->root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (out->root_fd < 0 || fchdir(proc) < 0)
        return error_sys(err, errno, "entering /proc/self/fd");
    return 0;
}

/*
 * The same where nobody may mount, which is a container's usual state. The one way out that stays
 * is ".." of the working directory, which open files again by their numbers: no request takes it,
 * and a server that an enclave has taken over finds nothing there that Landlock lets it open.
 */
static int take_chroot(bool read_only, struct confined *out, struct error *err)
{
    AUTO_FD int proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int landlock;

    out->root_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0 || out->root_fd < 0)
        return error_sys(err, errno, "opening a host mount's directory");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_sys(err, errno, "hardening a host mount's server");
    landlock = landlock_keep_below(out->root_fd, read_only, err);
    if (landlock < 0)
        return -1;
    if (chroot(".") < 0) {
        error_sys(err, errno, "shutting a host mount's server into its directory");
        return error_hint(err, "in a container this needs --cap-add SYS_CHROOT, which engines give "
                               "by default, or --privileged");
    }
    if (fchdir(proc) < 0)
        return error_sys(err, errno, "entering /proc/self/fd");
    out->way = landlock ? CONFINED_LANDLOCK : CONFINED_CHROOT;
    return 0;
}

static int take_view(bool root, bool read_only, struct confined *out, struct error *err)
{
    struct error why = {0};

    if (take_mounts(root, read_only, out, &why) == 0)
        return 0;
    /* Capabilities, the filter of a container's system calls, or AppArmor. */
    if (root && (why.sys == EPERM || why.sys == EACCES || why.sys == ENOSYS))
        return take_chroot(read_only, out, err);
    *err = why;
    return -1;
}

static int drop_capabilities(uint64_t keep, struct error *err)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    for (unsigned int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (!(keep & CAP_BIT(cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return error_sys(err, errno, "dropping capability %u", cap);
    if (syscall(SYS_capget, &head, data) < 0)
        return error_sys(err, errno, "reading capabilities");
    data[0].permitted &= (uint32_t)keep;
    data[1].permitted &= (uint32_t)(keep >> 32);
    for (int i = 0; i < 2; i++) {
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
        syscall(SYS_capset, &head, data) < 0)
        return error_sys(err, errno, "dropping capabilities");
    if ((keep & OWNER_CAPS) && (data[0].permitted & OWNER_CAPS) != OWNER_CAPS) {
        error_set(err, ERR_DENIED, "a host mount's server may not make files for other owners");
        return error_hint(err, "in a container this needs --cap-add SETUID and SETGID");
    }
    return 0;
}

/* The most descriptors that we can get: the enclave's kernel wants one for each file it knows. */
static uint32_t raise_files(void)
{
    AUTO_BUF struct buf text = BUF(64);
    struct rlimit limit;
    uint64_t most;

    if (geteuid() == 0 && file_read("/proc/sys/fs/nr_open", &text, NULL) == 0 &&
        parse_u64(slice_of(text.ptr, text.len - 1), UINT32_MAX / 2, &most) == 0) {
        limit = (struct rlimit){most, most};
        if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
            return (uint32_t)most;
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return FILES_MIN;
    limit.rlim_cur = limit.rlim_max < UINT32_MAX / 2 ? limit.rlim_max : UINT32_MAX / 2;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? (uint32_t)limit.rlim_cur : FILES_MIN;
}

static int harden(bool root, struct error *err)
{
    const struct rlimit none = {0};

    if (root && prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0)
        return error_sys(err, errno, "keeping capabilities over a change of owner");
    if (drop_capabilities(FILE_CAPS | (root ? OWNER_CAPS : 0), err) < 0)
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0 ||
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return error_sys(err, errno, "hardening a host mount's server");
    return 0;
}

int confine_enter(int dir_fd, bool read_only, struct confined *out, struct error *err)
{
    bool root = geteuid() == 0;
    uint32_t files = raise_files();

    if (files < FILES_MIN + RESERVED_FILES) {
        error_set(err, ERR_LIMIT, "%u open files are too few to serve a host mount", files);
        return error_hint(err, "raise the hard limit (ulimit -Hn) to %u or more",
                          FILES_MIN + RESERVED_FILES);
    }
    /* Before: a new namespace moves the working directory along, which no descriptor does. */
    if (fchdir(dir_fd) < 0)
        return error_sys(err, errno, "entering a host mount's directory");
    *out = (struct confined){.way = CONFINED_MOUNTS, .set_owner = root};
    if (take_view(root, read_only, out, err) < 0)
        return -1;
    out->files_max = files - RESERVED_FILES;
    umask(0);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN); /* of splice(2), which has no flag for it */
    return harden(root, err);
}
