#include "launch/carrier_dir.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/xdg.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#define PATH_LIMIT 64u
#define NAME_LEN   16u /* "c-" and 8 hex digits, with room */

static char *choose_parent(struct error *err)
{
    char *found = xdg_runtime_dir(PATH_LIMIT - NAME_LEN - 1);

    if (!found) {
        error_set(err, ERR_DENIED, "no private directory for the enclave's sockets");
        error_hint(err,
                   "set XDG_RUNTIME_DIR to a directory of your own with a path of at most %u "
                   "bytes",
                   PATH_LIMIT - NAME_LEN - 9);
    }
    return found;
}

/* Removes a directory and, after it, its lock file: whoever holds the lock may do so. */
static void remove_locked(const char *path)
{
    AUTO_FREE char *lock = xasprintf("%s.lock", path);

    if (tree_remove(path, NULL) == 0)
        unlink(lock);
}

void carrier_dir_sweep(const char *parent)
{
    DIR *d = opendir(parent);
    struct dirent *e;

    if (!d)
        return;
    while ((e = readdir(d)) != NULL) {
        size_t len = strlen(e->d_name);
        AUTO_FREE char *lock = xasprintf("%s/%s", parent, e->d_name);
        AUTO_FD int fd = -1;

        if (strncmp(e->d_name, "c-", 2) != 0 || len < 5 ||
            strcmp(e->d_name + len - 5, ".lock") != 0)
            continue;
        fd = open(lock, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
            continue;
        lock[strlen(lock) - 5] = '\0';
        remove_locked(lock);
    }
    closedir(d);
}

/* One try: 1 when made, 0 to try again (the name was taken, or swept before it was locked). */
static int try_make(const char *parent, struct carrier_dir *out, struct error *err)
{
    AUTO_FREE char *path = NULL, *lock = NULL;
    struct stat st;
    uint32_t r;

    if (getrandom(&r, sizeof(r), 0) != sizeof(r))
        return error_sys(err, errno, "reading random bytes");
    path = xasprintf("%s/c-%08x", parent, (unsigned int)r);
    lock = xasprintf("%s.lock", path);
    out->lock_fd = open(lock, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (out->lock_fd < 0)
        return errno == EEXIST ? 0 : error_sys(err, errno, "creating %s", lock);
    if (flock(out->lock_fd, LOCK_EX | LOCK_NB) < 0 || fstat(out->lock_fd, &st) < 0 ||
        st.st_nlink == 0) {
        fd_close(&out->lock_fd);
        return 0;
    }
    if (mkdir(path, 0700) < 0) {
        error_sys(err, errno, "making %s", path);
        unlink(lock);
        fd_close(&out->lock_fd);
        return -1;
    }
    out->path = xstrdup(path);
    return 1;
}

int carrier_dir_make(struct carrier_dir *out, struct error *err)
{
    AUTO_FREE char *parent = choose_parent(err);

    *out = CARRIER_DIR_NONE;
    if (!parent)
        return -1;
    carrier_dir_sweep(parent);
    for (int i = 0; i < 8; i++) {
        int rc = try_make(parent, out, err);

        if (rc != 0)
            return rc < 0 ? -1 : 0;
    }
    return error_set(err, ERR_IO, "cannot lock a new directory in %s", parent);
}

void carrier_dir_remove(struct carrier_dir *d)
{
    if (d->path)
        remove_locked(d->path);
    free(d->path);
    fd_close(&d->lock_fd);
    *d = CARRIER_DIR_NONE;
}
