#include "init/root.h"

#include "base/mem.h"
#include "init/image.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define APP_ROOT "/rootfs"

struct mount_row {
    const char *target;
    const char *type;
    unsigned long flags;
    const char *options;
    bool optional; /* another kernel than ours may lack it, and most apps do not miss it */
};

#define QUIET (MS_NOSUID | MS_NODEV | MS_NOEXEC)

/* In order: a target may lie in an earlier row's file system. */
static const struct mount_row mounts[] = {
    {"/proc", "proc", QUIET, NULL, false},
    {"/sys", "sysfs", QUIET, NULL, false},
    {"/run", "tmpfs", QUIET, "mode=0755", false},
    /* Programs unpack libraries into /tmp and map them. */
    {"/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", false},
    {"/dev/shm", "tmpfs", QUIET, "mode=1777", false},
    {"/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666", true},
    {"/sys/fs/cgroup", "cgroup2", QUIET, NULL, true},
};

static const struct {
    const char *name, *target;
} links[] = {
    {"/dev/fd", "/proc/self/fd"},
    {"/dev/stdin", "/proc/self/fd/0"},
    {"/dev/stdout", "/proc/self/fd/1"},
    {"/dev/stderr", "/proc/self/fd/2"},
};

static int make_dir(const char *path, struct error *err)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return error_sys(err, errno, "making the directory %s", path);
    return 0;
}

int root_mount_dev(struct error *err)
{
    if (make_dir("/dev", err) < 0)
        return -1;
    if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755") < 0 &&
        errno != EBUSY)
        return error_sys(err, errno, "mounting devtmpfs on /dev");
    return 0;
}

/* The tree that the kernel unpacked, or else the image. */
static int find_app_root(struct stat *st, struct error *err)
{
    if (lstat(APP_ROOT, st) == 0)
        return 0;
    if (errno == ENOENT && image_mount(APP_ROOT, err) < 0)
        return -1;
    if (lstat(APP_ROOT, st) < 0)
        return error_sys(err, errno, "looking for the app root " APP_ROOT);
    return 0;
}

int root_enter(struct error *err)
{
    struct stat st;

    if (find_app_root(&st, err) < 0)
        return -1;
    if (!S_ISDIR(st.st_mode))
        return error_set(err, ERR_INVALID, "the app root " APP_ROOT " is not a directory");
    if (make_dir(APP_ROOT "/dev", err) < 0)
        return -1;
    if (mount(APP_ROOT, APP_ROOT, NULL, MS_BIND, NULL) < 0)
        return error_sys(err, errno, "binding " APP_ROOT " on itself");
    if (mount("/dev", APP_ROOT "/dev", NULL, MS_MOVE, NULL) < 0)
        return error_sys(err, errno, "moving /dev to " APP_ROOT "/dev");
    if (chdir(APP_ROOT) < 0)
        return error_sys(err, errno, "entering " APP_ROOT);
    if (mount(".", "/", NULL, MS_MOVE, NULL) < 0)
        return error_sys(err, errno, "moving " APP_ROOT " to /");
    if (chroot(".") < 0 || chdir("/") < 0)
        return error_sys(err, errno, "making " APP_ROOT " the root");
    return 0;
}

int root_mount_all(struct error *err)
{
    for (size_t i = 0; i < ARRAY_LEN(mounts); i++) {
        const struct mount_row *m = &mounts[i];

        /* sysfs makes its own directories; where it did not, mount() says it better. */
        if (strncmp(m->target, "/sys/", 5) != 0 && make_dir(m->target, err) < 0)
            return -1;
        if (mount(m->type, m->target, m->type, m->flags, m->options) == 0)
            continue;
        error_sys(err, errno, "mounting %s on %s", m->type, m->target);
        if (!m->optional)
            return -1;
        error_wrap(err, "going on without it");
        error_print("capsule-init", err);
    }
    for (size_t i = 0; i < ARRAY_LEN(links); i++)
        if (symlink(links[i].target, links[i].name) < 0 && errno != EEXIST)
            return error_sys(err, errno, "making the link %s", links[i].name);
    return 0;
}
