/* Looking up, forgetting, and what stat(2) and its relatives show and change. */
#include "base/file.h"
#include "hostfs/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#define LOST_AND_FOUND "lost+found" /* ext4's own, which is none of the app's business */

bool is_hidden(const struct hostfs *fs, const struct node *parent, const char *name)
{
    return parent->fd == fs->root_fd && strcmp(name, LOST_AND_FOUND) == 0;
}

/* Takes the descriptor over. */
static int enter(struct hostfs *fs, int fd, struct fuse_entry_param *entry)
{
    uint64_t id = 0, generation = 0;
    int error;

    *entry =
        (struct fuse_entry_param){.attr_timeout = valid_secs(fs), .entry_timeout = valid_secs(fs)};
    if (fstat(fd, &entry->attr) < 0) {
        error = errno;
        fd_close(&fd);
        return error;
    }
    error = node_enter(fs->nodes, fd, &entry->attr, &id, &generation);
    entry->ino = id;
    entry->generation = generation;
    return error;
}

int look_up(struct hostfs *fs, const struct node *parent, const char *name,
            struct fuse_entry_param *entry)
{
    static const struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                                        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS |
                                                   RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    int fd;

    if (is_hidden(fs, parent, name))
        return ENOENT;
    fd = (int)syscall(SYS_openat2, parent->fd, name, &how, sizeof(how));
    return fd < 0 ? errno : enter(fs, fd, entry);
}

int look_up_fd(struct hostfs *fs, int fd, struct fuse_entry_param *entry)
{
    int path_fd = open(fd_name(fd).text, O_PATH | O_CLOEXEC);

    return path_fd < 0 ? errno : enter(fs, path_fd, entry);
}

void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct hostfs *fs = fs_of(req);
    struct fuse_entry_param entry;
    struct node *dir = node_get(fs->nodes, parent);
    int error;

    if (!dir) {
        reply(req, ESTALE);
        return;
    }
    error = look_up(fs, dir, name, &entry);
    node_put(fs->nodes, dir);
    if (error == ENOENT) {
        entry = (struct fuse_entry_param){.entry_timeout = VALID_ABSENT_SECS};
        fuse_reply_entry(req, &entry);
    } else if (error) {
        reply(req, error);
    } else {
        fuse_reply_entry(req, &entry);
    }
}

void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    node_forget(fs_of(req)->nodes, ino, count);
    fuse_reply_none(req);
}

void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        node_forget(fs_of(req)->nodes, forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static void reply_attr(fuse_req_t req, const struct node *n)
{
    struct stat st;

    if (fstat(n->fd, &st) < 0)
        reply(req, errno);
    else
        fuse_reply_attr(req, &st, valid_secs(fs_of(req)));
}

void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct hostfs *fs = fs_of(req);
    struct node *n = node_get(fs->nodes, ino);

    (void)fi;
    if (!n) {
        reply(req, ESTALE);
        return;
    }
    reply_attr(req, n);
    node_put(fs->nodes, n);
}

static int set_owner(const struct node *n, const struct stat *attr, int set)
{
    uid_t uid = set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
    gid_t gid = set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;

    if (fchownat(n->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    return errno == EINVAL ? EPERM : errno; /* an owner that our user namespace has no number for */
}

/* Through an open file where there is one: it may be written though the mode forbids it by now. */
static int set_size(struct hostfs *fs, const struct node *n, off_t size,
                    const struct fuse_file_info *fi)
{
    struct handle *h = fi ? handle_get(fs->handles, fi->fh, HANDLE_FILE) : NULL;
    AUTO_FD int opened = -1;
    int fd, error = 0;

    if (h && h->writable) {
        fd = h->fd;
    } else if (n->type == S_IFREG) {
        fd = opened = open(fd_name(n->fd).text, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    } else {
        fd = -1;
        errno = n->type == S_IFDIR ? EISDIR : EINVAL;
    }
    if (fd < 0 || ftruncate(fd, size) < 0)
        error = errno;
    else
        error = kill_suidgid(fd);
    handle_put(fs->handles, h);
    return error;
}

static int set_times(const struct node *n, const struct stat *attr, int set)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

    if (set & FUSE_SET_ATTR_ATIME)
        times[0] = attr->st_atim;
    if (set & FUSE_SET_ATTR_ATIME_NOW)
        times[0].tv_nsec = UTIME_NOW;
    if (set & FUSE_SET_ATTR_MTIME)
        times[1] = attr->st_mtim;
    if (set & FUSE_SET_ATTR_MTIME_NOW)
        times[1].tv_nsec = UTIME_NOW;
    return utimensat(n->fd, "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
}

/* Owner before mode: a change of owner takes set-id bits away. Size before times: it sets them. */
static int set_attributes(struct hostfs *fs, const struct node *n, const struct stat *attr, int set,
                          const struct fuse_file_info *fi)
{
    const int times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME |
                      FUSE_SET_ATTR_MTIME_NOW;
    int error = 0;

    if (set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
        error = set_owner(n, attr, set);
    if (!error && (set & FUSE_SET_ATTR_MODE) &&
        fchmodat(AT_FDCWD, fd_name(n->fd).text, attr->st_mode & 07777, 0) < 0)
        error = errno;
    if (!error && (set & FUSE_SET_ATTR_SIZE))
        error = set_size(fs, n, attr->st_size, fi);
    if (!error && (set & times))
        error = set_times(n, attr, set);
    return error;
}

void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set,
                struct fuse_file_info *fi)
{
    struct hostfs *fs = fs_of(req);
    struct node *n = node_get(fs->nodes, ino);
    int error;

    if (!n) {
        reply(req, ESTALE);
        return;
    }
    error = set_attributes(fs, n, attr, set, fi);
    if (error)
        reply(req, error);
    else
        reply_attr(req, n);
    node_put(fs->nodes, n);
}

void do_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct statvfs st;

    (void)ino;
    if (fstatvfs(fs_of(req)->root_fd, &st) < 0)
        reply(req, errno);
    else
        fuse_reply_statfs(req, &st);
}
