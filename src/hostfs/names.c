/* Making, removing, linking and renaming directory entries. */
#include "hostfs/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#define NO_ID ((uid_t)-1) /* setfsuid() changes nothing then and says what it is */

/*
 * The file system's idea of who we are is the thread's own. Our capabilities stay with us
 * (SECBIT_NO_SETUID_FIXUP), since the enclave's kernel has checked permissions already.
 */
int act_as_caller(fuse_req_t req)
{
    static _Thread_local uid_t uid; /* that this thread has; it starts as 0 */
    static _Thread_local gid_t gid;
    const struct fuse_ctx *who = fuse_req_ctx(req);

    if (!fs_of(req)->set_owner)
        return 0;
    if (who->gid != gid) {
        setfsgid(who->gid);
        gid = (gid_t)setfsgid(NO_ID);
    }
    if (who->uid != uid) {
        setfsuid(who->uid);
        uid = (uid_t)setfsuid(NO_ID);
    }
    return uid == who->uid && gid == who->gid ? 0 : EPERM;
}

int kill_suidgid(int fd)
{
    struct stat st;
    mode_t kill = S_ISUID;

    if (!hostfs_current()->kill_suidgid)
        return 0;
    if (fstat(fd, &st) < 0)
        return errno;
    if (st.st_mode & S_IXGRP)
        kill |= S_ISGID; /* else it means something else: chmod(2) */
    return st.st_mode & kill && fchmod(fd, st.st_mode & 07777 & ~kill) < 0 ? errno : 0;
}

struct node *get_dir(fuse_req_t req, fuse_ino_t id, const char *name)
{
    struct hostfs *fs = fs_of(req);
    struct node *dir = node_get(fs->nodes, id);

    if (!dir) {
        reply(req, ESTALE);
    } else if (is_hidden(fs, dir, name)) {
        reply(req, EPERM);
        node_put(fs->nodes, dir);
        dir = NULL;
    }
    return dir;
}

/* Ends a request that made `name`, unless there was an error. Gives the directory back. */
static void finish_made(fuse_req_t req, struct node *dir, const char *name, int error)
{
    struct hostfs *fs = fs_of(req);
    struct fuse_entry_param entry;

    if (!error)
        error = look_up(fs, dir, name, &entry);
    node_put(fs->nodes, dir);
    if (error)
        reply(req, error);
    else
        fuse_reply_entry(req, &entry);
}

void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct node *dir = get_dir(req, parent, name);
    int error;

    (void)rdev;
    if (!dir)
        return;
    /* Pipes and sockets are mere names here: the enclave's kernel never asks us to open one. */
    if (S_ISREG(mode) || S_ISFIFO(mode) || S_ISSOCK(mode))
        error = act_as_caller(req);
    else
        error = EPERM;
    if (!error && mknodat(dir->fd, name, mode & (S_IFMT | 07777), 0) < 0)
        error = errno;
    finish_made(req, dir, name, error);
}

void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct node *dir = get_dir(req, parent, name);
    int error;

    if (!dir)
        return;
    error = act_as_caller(req);
    if (!error && mkdirat(dir->fd, name, mode & 07777) < 0)
        error = errno;
    finish_made(req, dir, name, error);
}

void do_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct node *dir = get_dir(req, parent, name);
    int error;

    if (!dir)
        return;
    error = act_as_caller(req);
    if (!error && symlinkat(target, dir->fd, name) < 0)
        error = errno;
    finish_made(req, dir, name, error);
}

void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    struct hostfs *fs = fs_of(req);
    struct node *dir = get_dir(req, parent, name), *n;
    int error = 0;

    if (!dir)
        return;
    n = node_get(fs->nodes, ino);
    /* Through /proc/self/fd: AT_EMPTY_PATH asks for a capability of the first user namespace. */
    if (!n)
        error = ESTALE;
    else if (linkat(AT_FDCWD, fd_name(n->fd).text, dir->fd, name, AT_SYMLINK_FOLLOW) < 0)
        error = errno;
    node_put(fs->nodes, n);
    finish_made(req, dir, name, error);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, int flags)
{
    struct hostfs *fs = fs_of(req); /* an answer frees the request */
    struct node *dir = get_dir(req, parent, name);

    if (!dir)
        return;
    reply(req, unlinkat(dir->fd, name, flags) < 0 ? errno : 0);
    node_put(fs->nodes, dir);
}

void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, 0);
}

void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, AT_REMOVEDIR);
}

void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
               const char *to_name, unsigned int flags)
{
    struct hostfs *fs = fs_of(req);
    struct node *from = get_dir(req, parent, name), *to;
    int error = 0;

    if (!from)
        return;
    to = node_get(fs->nodes, to_parent);
    if (!to)
        error = ESTALE;
    else if (flags & ~(unsigned int)(RENAME_NOREPLACE | RENAME_EXCHANGE))
        error = EINVAL; /* RENAME_WHITEOUT makes a device node */
    else if (is_hidden(fs, to, to_name))
        error = EPERM;
    else if (renameat2(from->fd, name, to->fd, to_name, flags) < 0)
        error = errno;
    node_put(fs->nodes, to);
    node_put(fs->nodes, from);
    reply(req, error);
}

void do_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct hostfs *fs = fs_of(req);
    struct node *n = node_get(fs->nodes, ino);
    char target[PATH_MAX];
    ssize_t len;

    if (!n) {
        reply(req, ESTALE);
        return;
    }
    len = readlinkat(n->fd, "", target, sizeof(target));
    if (len < 0)
        reply(req, errno == ENOENT ? EINVAL : errno); /* that is how an empty path says it */
    else
        fuse_reply_buf(req, target, (size_t)len);
    node_put(fs->nodes, n);
}
