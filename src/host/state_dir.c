#include "host/state_dir.h"

#include "base/log.h"
#include "base/proc.h"
#include "host/state_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>

#define COMPONENT "mount"

#define MIB (1024u * 1024u)

/*
 * `mount ls` holds the lock for an instant to see whether it is free, and a server whose run was
 * killed until it has written out.
 */
#define LOCK_TRIES    40
#define LOCK_PAUSE_MS 50

/* ---- opening ---- */

static bool is_exposed(const struct stat *st)
{
    return (st->st_uid != geteuid() && st->st_uid != 0) ||
           ((st->st_mode & 022) != 0 && (st->st_mode & S_ISVTX) == 0);
}

/* What helps against errors of the host's file system, wherever they come up. Returns -1. */
static int advise(const char *path, struct error *err)
{
    switch (err ? err->sys : 0) {
    case ENOSPC:
    case EDQUOT:
        return error_hint(err, STATE_HINT_ROOM, path);
    case EROFS:
        return error_hint(err, "use a directory that can be written");
    case ELOOP:
        return error_hint(err, STATE_HINT_MOVE);
    default:
        return -1;
    }
}

/* And while the directory is opened, of which the path may be wrong. */
static int advise_on_path(const char *path, struct error *err)
{
    switch (err ? err->sys : 0) {
    case EACCES:
    case EPERM:
        return error_hint(err, "use a directory that this user can write");
    case ENOENT:
        return error_hint(err, "name the DIR of a run's --mount NAME=DIR");
    case ENOTDIR:
    case EEXIST:
        return error_hint(err, "use a directory, or a name that is still free: it is made");
    default:
        return advise(path, err);
    }
}

static int open_below(struct state_dir *sd, int top, bool create, struct error *err)
{
    struct stat st;

    if (create && mkdirat(top, STATE_HOSTFS, 0700) < 0 && errno != EEXIST)
        return error_sys(err, errno, "making %s/" STATE_HOSTFS, sd->path);
    sd->fd = openat(top, STATE_HOSTFS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (sd->fd < 0 && errno == ENOENT)
        return error_set(err, ERR_NOT_FOUND, "%s: was never used for a host mount", sd->path);
    if (sd->fd < 0 && (errno == ELOOP || errno == ENOTDIR)) {
        error_set(err, ERR_DENIED, "%s/" STATE_HOSTFS ": is a symbolic link or no directory",
                  sd->path);
        return error_hint(err, STATE_HINT_MOVE);
    }
    if (sd->fd < 0 || fstat(sd->fd, &st) < 0)
        return error_sys(err, errno, "opening %s/" STATE_HOSTFS, sd->path);
    if (st.st_uid != geteuid()) {
        error_set(err, ERR_DENIED, "%s/" STATE_HOSTFS ": belongs to user %u, not to user %u",
                  sd->path, st.st_uid, geteuid());
        return error_hint(err, "use another directory, or give it to one user: chown -R");
    }
    if (create && (st.st_mode & 07777) != 0700 && fchmod(sd->fd, 0700) < 0)
        return error_sys(err, errno, "closing %s/" STATE_HOSTFS " to others", sd->path);
    sd->dev = st.st_dev;
    sd->ino = st.st_ino;
    return 0;
}

int state_dir_open(const char *path, bool create, struct state_dir **out, struct error *err)
{
    AUTO_STATE_DIR struct state_dir *sd = xcalloc(1, sizeof(*sd));
    AUTO_FD int top = -1;
    struct stat st;

    sd->fd = sd->lock = -1;
    if (create && dir_make_all(path, 0700, err) < 0)
        return advise_on_path(path, err);
    sd->path = realpath(path, NULL);
    if (sd->path)
        top = open(sd->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0 || fstat(top, &st) < 0) {
        error_sys(err, errno, "opening the state directory %s", path);
        return advise_on_path(path, err);
    }
    sd->exposed = is_exposed(&st);
    if (open_below(sd, top, create, err) < 0)
        return advise_on_path(path, err);
    *out = sd;
    sd = NULL;
    return 0;
}

const char *state_dir_path(const struct state_dir *sd)
{
    return sd->path;
}

bool state_dir_same(const struct state_dir *a, const struct state_dir *b)
{
    return a->dev == b->dev && a->ino == b->ino;
}

const char *state_dir_served(const struct state_dir *sd)
{
    return sd->served;
}

/* ---- the lock ---- */

/* Returns its descriptor, *st filled, or -1. */
static int open_lock(const struct state_dir *sd, int flags, struct stat *st, struct error *err)
{
    int fd =
        openat(sd->fd, STATE_LOCK, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_sys(err, errno, "opening %s/" STATE_HOSTFS "/" STATE_LOCK, sd->path);
    if (fstat(fd, st) == 0 && S_ISREG(st->st_mode))
        return fd;
    close(fd);
    error_set(err, ERR_INVALID, "%s/" STATE_HOSTFS "/" STATE_LOCK ": is not a regular file",
              sd->path);
    return error_hint(err, STATE_HINT_MOVE);
}

static void who_has(const struct stat *lock, char *out, size_t size)
{
    state_users(&(struct state_wanted){.dev = lock->st_dev, .ino = lock->st_ino}, out, size);
}

/* Locks a file of the directory, which has this status. */
static int lock_patiently(const struct state_dir *sd, int fd, const struct stat *st,
                          struct error *err)
{
    static const struct timespec moment = {.tv_nsec = LOCK_PAUSE_MS * 1000000L};
    char users[256];

    for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_sys(err, errno, "locking %s", sd->path);
        if (i < LOCK_TRIES) {
            nanosleep(&moment, NULL);
            continue;
        }
        who_has(st, users, sizeof(users));
        error_set(err, ERR_EXISTS, "%s: in use by %s", sd->path,
                  users[0] ? users : "a process that cannot be seen from here");
        return error_hint(err, "wait for its end, or stop that run: capsule-cli ps lists them");
    }
    return 0;
}

int state_lock(struct state_dir *sd, struct error *err)
{
    AUTO_FD int fd = -1;
    struct stat st;

    if (sd->lock >= 0)
        return 0;
    fd = open_lock(sd, O_RDWR | O_CREAT, &st, err);
    if (fd < 0 || lock_patiently(sd, fd, &st, err) < 0)
        return -1;
    sd->lock = fd;
    fd = -1;
    return 0;
}

void state_unlock(struct state_dir *sd)
{
    fd_close(&sd->lock);
}

int state_dir_lock_fd(const struct state_dir *sd)
{
    return sd->lock;
}

/* ---- preparing ---- */

static bool is_there(const struct state_dir *sd, const char *name)
{
    return faccessat(sd->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void warn_space(const struct state_dir *sd, uint64_t size)
{
    struct statvfs host;
    struct stat st;
    uint64_t missing, room;

    if (fstatvfs(sd->fd, &host) < 0 ||
        fstatat(sd->fd, STATE_IMAGE_NAME, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    room = (uint64_t)host.f_bavail * host.f_frsize;
    missing = size > (uint64_t)st.st_blocks * 512 ? size - (uint64_t)st.st_blocks * 512 : 0;
    if (missing > room)
        log_warn(COMPONENT,
                 "the host has less space than the image may grow to need; when it is full, the "
                 "app's writes fail and files can be damaged",
                 kv_str("directory", sd->path), kv_uint("free_mb", room / MIB),
                 kv_uint("needed_mb", missing / MIB));
}

static int prepare_image(struct state_dir *sd, uint64_t size_mb, bool read_only, struct error *err)
{
    if (is_there(sd, STATE_TREE_NAME) && !is_there(sd, STATE_IMAGE_NAME)) {
        error_set(err, ERR_EXISTS,
                  "%s: holds a plain directory that an ordinary user's runs filled, and no image",
                  sd->path);
        return error_hint(
            err, "use another directory, or move %s/" STATE_HOSTFS "/" STATE_TREE_NAME " away",
            sd->path);
    }
    if (state_release_stale(sd, err) < 0 || state_image_ready(sd, size_mb, err) < 0)
        return -1;
    warn_space(sd, size_mb * MIB);
    if (state_mount(sd, read_only, err) < 0)
        return -1;
    sd->served = xasprintf("%s/" STATE_HOSTFS "/%s/" STATE_MNT_DATA, sd->path, sd->mnt);
    return 0;
}

/* A server locks what it serves: one in a container may have outlived its run and our lock. */
static int try_tree(struct state_dir *sd, struct error *err)
{
    AUTO_FD int fd =
        openat(sd->fd, STATE_TREE_NAME, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_sys(err, errno, "opening %s/" STATE_HOSTFS "/" STATE_TREE_NAME, sd->path);
    return lock_patiently(sd, fd, &st, err);
}

static int prepare_tree(struct state_dir *sd, uint64_t size_mb, struct error *err)
{
    if (is_there(sd, STATE_IMAGE_NAME)) {
        error_set(err, ERR_DENIED, "%s: holds an image, which only root can mount", sd->path);
        return error_hint(err, "run this as root, or use another directory");
    }
    if (mkdirat(sd->fd, STATE_TREE_NAME, 0700) < 0 && errno != EEXIST)
        return error_sys(err, errno, "making %s/" STATE_HOSTFS "/" STATE_TREE_NAME, sd->path);
    if (try_tree(sd, err) < 0)
        return -1;
    sd->served = xasprintf("%s/" STATE_HOSTFS "/" STATE_TREE_NAME, sd->path);
    log_info(COMPONENT, "not root, so a plain directory is served instead of an image",
             kv_str("directory", sd->served));
    log_warn(COMPONENT,
             "size_mb has no effect on a plain directory: the app may fill the host's "
             "file system",
             kv_str("directory", sd->path), kv_uint("size_mb", size_mb));
    return 0;
}

int state_dir_prepare(struct state_dir *sd, uint64_t size_mb, bool read_only, struct error *err)
{
    int rc;

    if (state_lock(sd, err) < 0)
        return advise(sd->path, err);
    if (sd->exposed)
        log_warn(COMPONENT,
                 "other users may rename what is in this directory, and so choose what is served",
                 kv_str("directory", sd->path));
    rc = geteuid() == 0 ? prepare_image(sd, size_mb, read_only, err)
                        : prepare_tree(sd, size_mb, err);
    if (rc == 0)
        return 0;
    state_unlock(sd);
    return advise(sd->path, err);
}

bool state_dir_seen_by(struct state_dir *sd, pid_t pid)
{
    struct stat st;

    if (!sd->mnt[0])
        return true;
    return stat(sd->served, &st) == 0 && state_mounted_for(st.st_dev, pid);
}

/* ---- releasing ---- */

int state_dir_release(struct state_dir *sd, struct error *err)
{
    int rc = state_unmount(sd, err);

    free(sd->served);
    sd->served = NULL;
    state_unlock(sd);
    return rc;
}

void state_dir_close(struct state_dir *sd)
{
    struct error err = {0};

    if (!sd)
        return;
    if (state_dir_release(sd, &err) < 0)
        log_warn(COMPONENT, "a host mount was not released in order", kv_str("error", err.msg));
    fd_close(&sd->fd);
    free(sd->path);
    free(sd);
}

/* ---- for `capsule-cli mount` ---- */

/* A mounted file system knows better than the superblock on disk. */
static void report_mounted(struct state_dir *sd, const char *mnt, struct state_report *out)
{
    AUTO_FREE char *path = xasprintf("/proc/self/fd/%d/%s/" STATE_MNT_DATA, sd->fd, mnt);
    struct statvfs vfs;

    if (statvfs(path, &vfs) == 0)
        out->used = (uint64_t)(vfs.f_blocks - vfs.f_bfree) * vfs.f_frsize;
}

static int report_lock(struct state_dir *sd, struct state_report *out, struct error *err)
{
    AUTO_FD int fd = -1;
    struct stat st;

    if (!is_there(sd, STATE_LOCK))
        return 0;
    fd = open_lock(sd, O_RDONLY, &st, err);
    if (fd < 0)
        return -1;
    out->locked = flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    if (out->locked)
        who_has(&st, out->users, sizeof(out->users));
    return 0;
}

int state_dir_report(struct state_dir *sd, struct state_report *out, struct error *err)
{
    AUTO_FD int fd = -1;
    char mnt[STATE_MNT_SIZE];
    struct stat st;
    dev_t dev;
    int rc;

    memset(out, 0, sizeof(*out));
    if (report_lock(sd, out, err) < 0)
        return -1;
    rc = state_image_open(sd, O_RDONLY, &fd, &st, err);
    if (rc < 0)
        return -1;
    if (rc > 0)
        state_image_report(fd, &st, out);
    else if (is_there(sd, STATE_TREE_NAME))
        out->kind = STATE_TREE;
    if (!state_mounted(sd, mnt, &dev))
        return 0;
    out->mounted = true;
    report_mounted(sd, mnt, out);
    if (!out->users[0])
        state_users(&(struct state_wanted){.dev = dev, .mount = dev}, out->users,
                    sizeof(out->users));
    return 0;
}

void state_dir_discover(char ***paths)
{
    state_users_of_suffix("/" STATE_HOSTFS "/" STATE_LOCK, paths);
    state_loop_backing("/" STATE_IMAGE_SHOWN, paths);
}
