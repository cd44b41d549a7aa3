#include "cli/nitro_build_mark.h"

#include "base/file.h"
#include "base/log.h"
#include "base/xdg.h"
#include "cli/nitro_build.h"
#include "container/labelled.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define TEXT_MAX ((size_t)2 * PATH_MAX + 2)

static char *marks_dir(struct error *err)
{
    return xdg_dir(XDG_STATE, "builds", "the marks of builds", err);
}

/* Opens and locks the file `path`. 1, 0 when it is held (not with `wait`) or gone, -1. */
static int open_locked(const char *path, int flags, bool wait, int *out, struct error *err)
{
    for (;;) {
        AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
        struct stat here, there;

        if (fd < 0 && errno == ENOENT)
            return 0;
        if (fd < 0)
            return error_sys(err, errno, "opening %s", path);
        if (flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) < 0) {
            if (errno == EWOULDBLOCK)
                return 0;
            if (errno == EINTR)
                continue;
            return error_sys(err, errno, "locking %s", path);
        }
        /* Whoever swept between open and lock has taken the file away. */
        if (fstat(fd, &here) == 0 && lstat(path, &there) == 0 && here.st_ino == there.st_ino &&
            here.st_dev == there.st_dev) {
            *out = fd;
            fd = -1;
            return 1;
        }
    }
}

int nitro_build_mark_make(const char *uuid, const char *socket, const char *dir,
                          struct nitro_build_mark *out, struct error *err)
{
    AUTO_FREE char *parent = marks_dir(err);
    AUTO_FREE char *path = NULL;
    AUTO_FREE char *text = xasprintf("%s\n%s\n", socket, dir);
    AUTO_FD int fd = -1;

    if (!parent || dir_make_all(parent, 0700, err) < 0)
        return -1;
    path = xasprintf("%s/%s", parent, uuid);
    if (open_locked(path, O_CREAT, true, &fd, err) <= 0)
        return -1;
    if (fd_write_all(fd, text, strlen(text), path, err) < 0 || fsync(fd) < 0) {
        unlink(path);
        return -1;
    }
    *out = (struct nitro_build_mark){.path = path, .fd = fd};
    path = NULL;
    fd = -1;
    return 0;
}

void nitro_build_mark_close(struct nitro_build_mark *m, bool left)
{
    if (m->path && !left)
        unlink(m->path);
    free(m->path);
    fd_close(&m->fd);
    *m = NITRO_BUILD_MARK_NONE;
}

/* ---- what killed builds have left ---- */

static bool is_uuid(const char *name)
{
    return strlen(name) == NITRO_BUILD_UUID_LEN &&
           strspn(name, "0123456789abcdef-") == NITRO_BUILD_UUID_LEN;
}

/* The mark says where; that it is a build directory of ours is seen from itself. */
static int remove_dir(const char *dir, const char *uuid, struct error *err)
{
    AUTO_FREE char *name = xasprintf("/" NITRO_BUILD_DIR "%s", uuid);
    size_t len = strlen(dir), skip = strlen(name);
    struct stat st;

    if (dir[0] != '/' || len < skip || strcmp(dir + len - skip, name) != 0 || lstat(dir, &st) < 0 ||
        !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return 0;
    return tree_remove(dir, err);
}

static int remove_things(const char *socket, const char *dir, const char *uuid,
                         struct nitro_build_swept *out, struct error *err)
{
    AUTO_CONTAINER_ENGINE struct container_engine e = {0};

    if (container_engine_open(socket, &e, err) < 0 ||
        container_remove_labelled(&e, NITRO_BUILD_LABEL, uuid, &out->containers, &out->images,
                                  err) < 0)
        return -1;
    return remove_dir(dir, uuid, err);
}

static int sweep(const char *path, const char *uuid, struct nitro_build_swept *out,
                 struct error *err)
{
    AUTO_BUF struct buf text = BUF(TEXT_MAX);
    AUTO_FD int fd = -1;
    struct error why = {0};
    char *socket, *dir, *end;
    int rc = open_locked(path, 0, false, &fd, err);

    if (rc <= 0)
        return rc;
    if (file_read(path, &text, err) < 0)
        return -1;
    socket = xstrdup(buf_cstr(&text));
    dir = strchr(socket, '\n');
    end = dir ? strchr(dir + 1, '\n') : NULL;
    if (end) { /* else it was killed before it made anything */
        *dir++ = *end = '\0';
        if (remove_things(socket, dir, uuid, out, &why) < 0)
            log_warn("prune", "what a killed build has left stays", kv_str("build", uuid),
                     kv_str("reason", why.msg));
    }
    free(socket);
    if (why.kind != ERR_NONE)
        return 0;
    if (unlink(path) < 0)
        return error_sys(err, errno, "removing %s", path);
    out->builds++;
    return 0;
}

int nitro_build_marks_sweep(struct nitro_build_swept *out, struct error *err)
{
    AUTO_FREE char *parent = marks_dir(err);
    DIR *d = parent ? opendir(parent) : NULL;
    const struct dirent *e;
    int rc = 0;

    *out = (struct nitro_build_swept){0};
    if (!parent)
        return -1;
    if (!d)
        return errno == ENOENT ? 0 : error_sys(err, errno, "opening %s", parent);
    while (rc == 0 && (e = readdir(d)) != NULL) {
        AUTO_FREE char *path = xasprintf("%s/%s", parent, e->d_name);

        if (is_uuid(e->d_name))
            rc = sweep(path, e->d_name, out, err);
    }
    closedir(d);
    return rc;
}
