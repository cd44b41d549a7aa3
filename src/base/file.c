#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

void fd_close(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}

int fd_set_nonblock(int fd, struct error *err)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_sys(err, errno, "making descriptor %d non-blocking", fd);
    return 0;
}

void fd_close_from(int first, const int *keep, size_t count)
{
    unsigned int from = (unsigned int)first;

    for (size_t i = 0; i < count; i++) {
        unsigned int fd = (unsigned int)keep[i];

        if (keep[i] < 0 || fd < from)
            continue;
        if (fd > from)
            syscall(SYS_close_range, from, fd - 1, 0);
        from = fd + 1;
    }
    syscall(SYS_close_range, from, ~0u, 0);
}

static void wait_for(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};

    poll(&p, 1, -1);
}

static int write_failed(int sys, const char *name, struct error *err)
{
    error_sys(err, sys, "writing %s", name);
    if (sys == ENOSPC || sys == EDQUOT)
        error_hint(err, "free some space there, or choose another place (the output path, or "
                        "TMPDIR for working files)");
    return -1;
}

int fd_write_all(int fd, const void *ptr, size_t len, const char *name, struct error *err)
{
    const uint8_t *p = ptr;

    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n >= 0) {
            p += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            wait_for(fd, POLLOUT);
        } else if (errno != EINTR) {
            return write_failed(errno, name, err);
        }
    }
    return 0;
}

int fd_pwrite_all(int fd, const void *ptr, size_t len, off_t offset, const char *name,
                  struct error *err)
{
    const uint8_t *p = ptr;

    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, offset);

        if (n >= 0) {
            p += n;
            len -= (size_t)n;
            offset += n;
        } else if (errno != EINTR) {
            return write_failed(errno, name, err);
        }
    }
    return 0;
}

int fd_read_full(int fd, void *ptr, size_t len, const char *name, struct error *err)
{
    uint8_t *p = ptr;

    while (len > 0) {
        ssize_t n = read(fd, p, len);

        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (n == 0) {
            return error_set(err, ERR_INVALID, "%s: ends early", name);
        } else if (errno == EAGAIN) {
            wait_for(fd, POLLIN);
        } else if (errno != EINTR) {
            return error_sys(err, errno, "reading %s", name);
        }
    }
    return 0;
}

int fd_pread_full(int fd, void *ptr, size_t len, off_t offset, const char *name, struct error *err)
{
    uint8_t *p = ptr;

    while (len > 0) {
        ssize_t n = pread(fd, p, len, offset);

        if (n > 0) {
            p += n;
            len -= (size_t)n;
            offset += n;
        } else if (n == 0) {
            return error_set(err, ERR_INVALID, "%s: ends early", name);
        } else if (errno != EINTR) {
            return error_sys(err, errno, "reading %s", name);
        }
    }
    return 0;
}

int fd_read_all(int fd, struct buf *out, const char *name, struct error *err)
{
    for (;;) {
        size_t room = out->max - out->len;
        uint8_t extra = 0, *to;
        ssize_t n;

        if (room > 65536)
            room = 65536;
        /* When the buf is full one more byte tells whether the file fits exactly. */
        to = room ? buf_reserve(out, room) : &extra;
        n = read(fd, to, room ? room : 1);
        if (n == 0)
            return 0;
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return error_sys(err, errno, "reading %s", name);
        }
        if (!room)
            return error_set(err, ERR_LIMIT, "reading %s: larger than the limit of %zu bytes", name,
                             out->max);
        out->len += (size_t)n;
    }
}

int file_read(const char *path, struct buf *out, struct error *err)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_sys(err, errno, "opening %s", path);
    return fd_read_all(fd, out, path, err);
}

int dir_make_all(const char *path, mode_t mode, struct error *err)
{
    AUTO_FREE char *copy = xstrdup(path);

    for (char *p = copy + 1;; p++) {
        char c = *p;

        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        if (mkdir(copy, mode) < 0 && errno != EEXIST && errno != EISDIR)
            return error_sys(err, errno, "making directory %s", copy);
        *p = c;
        if (c == '\0')
            return 0;
    }
}

static int remove_at(int dirfd, const char *name, dev_t dev, int depth, struct error *err)
{
    struct stat st;
    struct dirent *e;
    DIR *dir;
    int fd, rc = 0;

    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : error_sys(err, errno, "removing %s", name);
    if (!S_ISDIR(st.st_mode)) {
        if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
            return error_sys(err, errno, "removing %s", name);
        return 0;
    }
    if (dev != 0 && st.st_dev != dev)
        return error_set(err, ERR_DENIED, "removing %s: another file system is mounted there",
                         name);
    if (depth > 4096)
        return error_set(err, ERR_LIMIT, "removing %s: nested too deep", name);
    /* The trees we unpack may hold directories that even their owner cannot list or change. */
    if ((st.st_mode & 0700) != 0700 && fchmodat(dirfd, name, 0700, 0) < 0)
        return error_sys(err, errno, "removing %s", name);
    fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, errno, "removing %s", name);
    dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return error_sys(err, ENOMEM, "removing %s", name);
    }
    while (rc == 0 && (e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        rc = remove_at(fd, e->d_name, st.st_dev, depth + 1, err);
    }
    closedir(dir);
    if (rc == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return error_sys(err, errno, "removing directory %s", name);
    return rc;
}

int tree_remove(const char *path, struct error *err)
{
    return remove_at(AT_FDCWD, path, 0, 0, err);
}

static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return xstrdup(".");
    return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

int atomic_file_open(struct atomic_file *f, const char *path, mode_t mode, struct error *err)
{
    AUTO_FREE char *dir = parent_of(path);
    struct stat st;

    *f = ATOMIC_FILE_NONE;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return error_set(err, ERR_INVALID, "writing %s: it is a directory", path);
    f->mode = mode;
    f->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
    if (f->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        f->temp = xasprintf("%s.XXXXXX", path);
        f->fd = mkostemp(f->temp, O_CLOEXEC);
    }
    if (f->fd < 0) {
        int sys = errno;

        free(f->temp);
        f->temp = NULL;
        return error_sys(err, sys, "creating %s", path);
    }
    f->path = xstrdup(path);
    return 0;
}

/* Gives an unnamed file a temporary name, from where rename(2) can replace the target. */
static int give_name(struct atomic_file *f, struct error *err)
{
    char self[64];

    snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
    for (unsigned int i = 0; i < 1000; i++) {
        f->temp = xasprintf("%s.%d.%u.tmp", f->path, (int)getpid(), i);
        if (linkat(AT_FDCWD, self, AT_FDCWD, f->temp, AT_SYMLINK_FOLLOW) == 0)
            return 0;
        free(f->temp);
        f->temp = NULL;
        if (errno != EEXIST)
            break;
    }
    return error_sys(err, errno, "naming %s", f->path);
}

int atomic_file_adopt(struct atomic_file *f, const char *path, mode_t mode, int fd,
                      struct error *err)
{
    struct error why = {0};
    struct stat st;

    *f = ATOMIC_FILE_NONE;
    if (fstat(fd, &st) < 0 || st.st_nlink > 0)
        return 0;
    f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (f->fd < 0)
        return error_sys(err, errno, "creating %s", path);
    f->path = xstrdup(path);
    f->mode = mode;
    if (give_name(f, &why) == 0)
        return 1;
    atomic_file_drop(f);
    return 0;
}

int atomic_file_commit(struct atomic_file *f, struct error *err)
{
    int rc = 0;

    if (fchmod(f->fd, f->mode) < 0 || fsync(f->fd) < 0)
        rc = error_sys(err, errno, "writing %s", f->path);
    if (rc == 0 && !f->temp)
        rc = give_name(f, err);
    if (rc == 0 && rename(f->temp, f->path) < 0)
        rc = error_sys(err, errno, "renaming %s to %s", f->temp, f->path);
    if (rc == 0) {
        free(f->temp);
        f->temp = NULL;
    }
    atomic_file_drop(f);
    return rc;
}

void atomic_file_drop(struct atomic_file *f)
{
    fd_close(&f->fd);
    if (f->temp)
        unlink(f->temp);
    free(f->temp);
    free(f->path);
    f->temp = f->path = NULL;
}

int file_write_atomic(const char *path, struct slice bytes, mode_t mode, struct error *err)
{
    CLEANUP(atomic_file_drop) struct atomic_file f = ATOMIC_FILE_NONE;

    if (atomic_file_open(&f, path, mode, err) < 0 ||
        fd_write_all(f.fd, bytes.ptr, bytes.len, path, err) < 0)
        return -1;
    return atomic_file_commit(&f, err);
}

int file_temp(struct error *err)
{
    const char *dir = getenv("TMPDIR");
    AUTO_FREE char *name = NULL;
    int fd;

    if (!dir || dir[0] != '/')
        dir = "/var/tmp";
    fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    name = xasprintf("%s/capsule.XXXXXX", dir);
    fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0) {
        error_sys(err, errno, "creating a working file in %s", dir);
        return error_hint(err, "set TMPDIR to a directory that can be written");
    }
    unlink(name);
    return fd;
}
