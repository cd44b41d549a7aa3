/* Who keeps a file, a file system or a mount busy: read from /proc. */
#include "base/strv.h"
#include "host/state_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#define NAMED_MAX     4
#define MOUNTINFO_MAX (4u << 20) /* bytes */

static bool is_number(const char *s)
{
    return *s && strspn(s, "0123456789") == strlen(s);
}

static bool stat_matches(int dir, const char *name, const struct state_wanted *w)
{
    struct statx st;
    dev_t dev;

    /* Not synchronised: another process's file may lie on a server that does not answer. */
    if (w->dev == 0 || statx(dir, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) < 0)
        return false;
    dev = makedev(st.stx_dev_major, st.stx_dev_minor);
    return dev == w->dev && (w->ino == 0 || st.stx_ino == w->ino);
}

static bool has_open(int proc, const struct state_wanted *w)
{
    int fd = openat(proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    bool found = false;

    if (!dir) {
        fd_close(&fd);
        return false;
    }
    for (struct dirent *e; !found && (e = readdir(dir));)
        found = is_number(e->d_name) && stat_matches(dirfd(dir), e->d_name, w);
    closedir(dir);
    return found;
}

static bool mountinfo_has(int proc, dev_t dev)
{
    AUTO_FD int fd = openat(proc, "mountinfo", O_RDONLY | O_CLOEXEC);
    AUTO_BUF struct buf text = BUF(MOUNTINFO_MAX);
    char wanted[40];

    if (fd < 0 || fd_read_all(fd, &text, "mountinfo", NULL) < 0)
        return false;
    snprintf(wanted, sizeof(wanted), " %u:%u ", major(dev), minor(dev));
    return strstr(buf_cstr(&text), wanted) != NULL;
}

bool state_mounted_for(dev_t dev, pid_t pid)
{
    AUTO_FREE char *path = xasprintf("/proc/%d", (int)pid);
    AUTO_FD int proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    return proc >= 0 && mountinfo_has(proc, dev);
}

/* Other mount namespaces than ours, so that our own mounts do not name every process. */
static bool has_mounted(int proc, const struct state_wanted *w)
{
    char own[64], theirs[64];
    ssize_t a = readlink("/proc/self/ns/mnt", own, sizeof(own));
    ssize_t b = readlinkat(proc, "ns/mnt", theirs, sizeof(theirs));

    if (w->mount == 0 || a <= 0 || b <= 0 || (a == b && memcmp(own, theirs, (size_t)a) == 0))
        return false;
    return mountinfo_has(proc, w->mount);
}

static bool uses(int proc, const struct state_wanted *w)
{
    return stat_matches(proc, "cwd", w) || stat_matches(proc, "root", w) ||
           stat_matches(proc, "exe", w) || has_open(proc, w) || has_mounted(proc, w);
}

static void name_of(int proc, char name[32])
{
    AUTO_FD int fd = openat(proc, "comm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, name, 31);

    name[n > 0 ? n : 0] = '\0';
    name[strcspn(name, "\n")] = '\0';
}

void state_users(const struct state_wanted *w, char *out, size_t size)
{
    DIR *dir = opendir("/proc");
    size_t count = 0, len = 0;

    out[0] = '\0';
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir));) {
        AUTO_FD int proc = -1;
        char name[32];

        if (!is_number(e->d_name) || atoi(e->d_name) == getpid())
            continue;
        proc = openat(dirfd(dir), e->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (proc < 0 || !uses(proc, w))
            continue;
        count++;
        name_of(proc, name);
        if (count <= NAMED_MAX && len < size)
            len += (size_t)snprintf(out + len, size - len, "%s%s (process %s)",
                                    count > 1 ? ", " : "", name[0] ? name : "?", e->d_name);
    }
    closedir(dir);
    if (count > NAMED_MAX && len < size)
        snprintf(out + len, size - len, " and %zu more", count - NAMED_MAX);
}

static void add_fds_of(int proc, const char *suffix, char ***paths)
{
    int fd = openat(proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    size_t tail = strlen(suffix);
    char target[PATH_MAX];

    if (!dir) {
        fd_close(&fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);

        if (n <= (ssize_t)tail)
            continue;
        target[n] = '\0';
        if (strcmp(target + n - tail, suffix) != 0)
            continue;
        target[(size_t)n - tail] = '\0';
        strv_add(paths, target);
    }
    closedir(dir);
}

void state_users_of_suffix(const char *suffix, char ***paths)
{
    DIR *dir = opendir("/proc");

    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir));) {
        AUTO_FD int proc = -1;

        if (!is_number(e->d_name))
            continue;
        proc = openat(dirfd(dir), e->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (proc >= 0)
            add_fds_of(proc, suffix, paths);
    }
    closedir(dir);
}
