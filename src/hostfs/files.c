/* Opening files, their contents, and what makes those durable. */
#include "base/file.h"
#include "hostfs/fs.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

#define SPLICE_MIN (64u * 1024) /* what is shorter costs less when it is copied */
#define PROBE_LEN  4096u        /* of those, read to see whether it is in memory */

/*
 * How a file is opened here. The enclave's kernel appends, bypasses its cache and syncs by itself
 * (O_SYNC becomes fsync), and its write-back cache may have to read where an app only writes.
 */
static int host_flags(const struct hostfs *fs, int flags)
{
    int mode = flags & O_ACCMODE;

    if (mode == O_WRONLY && !fs->read_only)
        mode = O_RDWR;
    return mode | (flags & O_TRUNC) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
}

/* A descriptor for the file of a node, or -1 with errno. */
static int open_node(const struct hostfs *fs, const struct node *n, int flags)
{
    struct fd_name name = fd_name(n->fd);
    int wanted = host_flags(fs, flags), fd, error;

    if (n->type != S_IFREG) {
        errno = n->type == S_IFDIR ? EISDIR : ENXIO; /* no pipe, socket or device is opened here */
        return -1;
    }
    fd = open(name.text, wanted);
    if (fd < 0 && errno == EACCES && (flags & O_ACCMODE) == O_WRONLY)
        fd = open(name.text, (wanted & ~O_ACCMODE) | O_WRONLY);
    error = fd >= 0 && (flags & O_TRUNC) ? kill_suidgid(fd) : 0;
    if (error) {
        fd_close(&fd);
        errno = error;
    }
    return fd;
}

/* Takes the descriptor over and makes a handle of it. 0 or an errno. */
static int add(struct hostfs *fs, int fd, fuse_ino_t ino, struct fuse_file_info *fi)
{
    uint64_t number = 0;
    int error =
        handle_add(fs->handles, HANDLE_FILE, fd, (fi->flags & O_ACCMODE) != O_RDONLY, ino, &number);

    fi->fh = number;
    fi->keep_cache = 1; /* what the host changes shows by its times, where it shows at all */
    return error;
}

void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct hostfs *fs = fs_of(req);
    struct node *n = node_get(fs->nodes, ino);
    int fd, error;

    if (!n) {
        reply(req, ESTALE);
        return;
    }
    fd = open_node(fs, n, fi->flags);
    error = fd < 0 ? errno : add(fs, fd, ino, fi);
    node_put(fs->nodes, n);
    if (error)
        reply(req, error);
    else if (fuse_reply_open(req, fi) < 0)
        handle_remove(fs->handles, fi->fh, HANDLE_FILE);
}

/* The file that is there under a name that could not be made. 0 or an errno. */
static int open_existing(struct hostfs *fs, const struct node *dir, const char *name, int flags,
                         struct fuse_entry_param *entry, int *fd)
{
    int error = look_up(fs, dir, name, entry);
    struct node *n;

    if (error)
        return error;
    n = node_get(fs->nodes, entry->ino);
    errno = ESTALE; /* a hostile enclave can have it forgotten at once */
    *fd = n ? open_node(fs, n, flags) : -1;
    error = *fd < 0 ? errno : 0;
    node_put(fs->nodes, n);
    if (error)
        node_forget(fs->nodes, entry->ino, 1);
    return error;
}

/* Opens a new file or, unless O_EXCL is there, the one of that name. 0 or an errno. */
static int create(struct hostfs *fs, const struct node *dir, const char *name, mode_t mode,
                  int flags, struct fuse_entry_param *entry, int *fd)
{
    const struct open_how how = {
        .flags = (uint64_t)(host_flags(fs, flags) | O_CREAT | O_EXCL | O_NOFOLLOW),
        .mode = mode & 07777,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    int error;

    *fd = (int)syscall(SYS_openat2, dir->fd, name, &how, sizeof(how));
    if (*fd < 0 && errno == EEXIST && !(flags & O_EXCL))
        return open_existing(fs, dir, name, flags, entry, fd);
    if (*fd < 0)
        return errno;
    error = look_up_fd(fs, *fd, entry);
    if (error)
        fd_close(fd);
    return error;
}

void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi)
{
    struct hostfs *fs = fs_of(req);
    struct node *dir = get_dir(req, parent, name);
    struct fuse_entry_param entry = {0};
    int fd = -1, error;

    if (!dir)
        return;
    error = act_as_caller(req);
    if (!error)
        error = create(fs, dir, name, mode, fi->flags, &entry, &fd);
    node_put(fs->nodes, dir);
    if (!error) {
        error = add(fs, fd, entry.ino, fi);
        if (error)
            node_forget(fs->nodes, entry.ino, 1);
    }
    if (error)
        reply(req, error);
    else
        fuse_reply_create(req, &entry, fi);
}

/*
 * Reads what is in the machine's memory, and lets another thread read requests when there is more
 * than that (or the file system cannot tell). Of what is to be spliced only the last page is tried.
 * Returns the bytes in `space`.
 */
static size_t read_at_once(int fd, size_t size, off_t offset)
{
    struct hostfs_request *r = hostfs_current();
    bool all = size < SPLICE_MIN;
    size_t at = all ? 0 : size - PROBE_LEN, start = at;
    ssize_t n = 1;

    while (at < size && n > 0) {
        const struct iovec iov = {r->space + at - start, size - at};

        n = preadv2(fd, &iov, 1, offset + (off_t)at, RWF_NOWAIT);
        if (n > 0)
            at += (size_t)n;
    }
    if (n < 0)
        r->may_wait(r->arg);
    return all ? at : 0;
}

/*
 * Answers a long read with the pages of the file, not with a copy. Returns `size` when that is
 * done; else how many bytes are in `space`, for the rest to be read behind them.
 */
static size_t read_spliced(fuse_req_t req, int fd, size_t size, off_t offset)
{
    struct hostfs_request *r = hostfs_current();
    struct fuse_out_header head = {.len = (uint32_t)(sizeof(head) + size), .unique = r->unique};
    size_t done = 0;
    ssize_t n = 1;

    while (done < size && n > 0) {
        n = splice(fd, &offset, r->pipe[1], NULL, size - done, SPLICE_F_NONBLOCK);
        if (n > 0)
            done += (size_t)n;
    }
    if (done < size) { /* the file's end, an error, or pieces that fill no pages */
        hostfs_unpipe(r, r->space, done);
        return done;
    }
    r->send_piped(r->arg, &head, sizeof(head), size);
    fuse_reply_none(req);
    return size;
}

void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    struct hostfs *fs = fs_of(req);
    struct handle *h = handle_get(fs->handles, fi->fh, HANDLE_FILE);
    const struct hostfs_request *r = hostfs_current();
    uint8_t *space = r->space;
    size_t done = 0;
    ssize_t n = 1;

    (void)ino;
    if (!h) {
        reply(req, EBADF);
        return;
    }
    done = read_at_once(h->fd, size, offset);
    if (r->pipe[0] >= 0 && size >= SPLICE_MIN) {
        done = read_spliced(req, h->fd, size, offset);
        if (done == size) {
            handle_put(fs->handles, h);
            return;
        }
    }
    while (done < size && n > 0) {
        n = pread(h->fd, space + done, size - done, offset + (off_t)done);
        if (n > 0)
            done += (size_t)n;
    }
    if (n < 0 && done == 0)
        reply(req, errno);
    else
        fuse_reply_buf(req, (const char *)space, done);
    handle_put(fs->handles, h);
}

/*
 * As pwrite(), of bytes that may be in the request's pipe, and then have room at `bytes`. A file
 * system that takes nothing from a pipe says EINVAL.
 */
static ssize_t write_some(int fd, const char *bytes, size_t len, off_t offset)
{
    struct hostfs_request *r = hostfs_current();
    off_t at = offset;
    ssize_t n = -1;

    if (r->piped > 0) {
        n = splice(r->pipe[0], NULL, fd, &at, len, 0);
        if (n >= 0 || errno != EINVAL) {
            r->piped -= n > 0 ? (size_t)n : 0;
            return n;
        }
        hostfs_unpipe(r, (uint8_t *)(uintptr_t)bytes, r->piped);
        r->piped = 0;
    }
    return pwrite(fd, bytes, len, offset);
}

void do_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
              struct fuse_file_info *fi)
{
    struct hostfs *fs = fs_of(req);
    struct handle *h = handle_get(fs->handles, fi->fh, HANDLE_FILE);
    size_t done = 0;
    int error;

    (void)ino;
    if (!h) {
        reply(req, EBADF);
        return;
    }
    error = kill_suidgid(h->fd);
    while (!error && done < size) {
        ssize_t n = write_some(h->fd, &bytes[done], size - done, offset + (off_t)done);

        if (n > 0)
            done += (size_t)n;
        else
            error = n < 0 ? errno : EIO;
    }
    /*
     * Nobody waits for the count of a delayed write: all of it went, or the app has to know. After
     * the count of a direct one Linux delays the rest, and then has only EIO for what fails; after
     * an error it cuts off what was appended.
     */
    if (error && (done == 0 || fi->writepage || (fi->flags & O_DIRECT)))
        reply(req, error);
    else
        fuse_reply_write(req, done);
    handle_put(fs->handles, h);
}

void release_handle(fuse_req_t req, const struct fuse_file_info *fi, enum handle_kind kind)
{
    handle_remove(fs_of(req)->handles, fi->fh, kind);
    reply(req, 0);
}

void sync_handle(fuse_req_t req, const struct fuse_file_info *fi, enum handle_kind kind,
                 int data_only)
{
    struct hostfs *fs = fs_of(req);
    struct handle *h = handle_get(fs->handles, fi->fh, kind);

    if (!h) {
        reply(req, EBADF);
        return;
    }
    reply(req, (data_only ? fdatasync(h->fd) : fsync(h->fd)) < 0 ? errno : 0);
    handle_put(fs->handles, h);
}

void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    release_handle(req, fi, HANDLE_FILE);
}

void do_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    (void)ino;
    sync_handle(req, fi, HANDLE_FILE, data_only);
}

void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                  struct fuse_file_info *fi)
{
    struct hostfs *fs = fs_of(req);
    struct handle *h = handle_get(fs->handles, fi->fh, HANDLE_FILE);

    (void)ino;
    if (!h) {
        reply(req, EBADF);
        return;
    }
    reply(req, fallocate(h->fd, mode, offset, length) < 0 ? errno : 0);
    handle_put(fs->handles, h);
}

void do_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
    struct hostfs *fs = fs_of(req);
    struct handle *h = handle_get(fs->handles, fi->fh, HANDLE_FILE);
    off_t found;

    (void)ino;
    if (!h) {
        reply(req, EBADF);
        return;
    }
    /*
     * Linux asks this without writing back first what it holds for us: data would look like a hole,
     * and a program that copies the file would leave it out. Programs read it all instead.
     */
    errno = EOPNOTSUPP;
    found = handle_writes(fs->handles, h->node) ? -1 : lseek(h->fd, offset, whence);
    if (found < 0)
        reply(req, errno);
    else
        fuse_reply_lseek(req, found);
    handle_put(fs->handles, h);
}

void do_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset,
                        struct fuse_file_info *from_fi, fuse_ino_t to, off_t to_offset,
                        struct fuse_file_info *to_fi, size_t len, int flags)
{
    struct hostfs *fs = fs_of(req);
    struct handle *source = handle_get(fs->handles, from_fi->fh, HANDLE_FILE);
    struct handle *target = handle_get(fs->handles, to_fi->fh, HANDLE_FILE);
    ssize_t n;

    (void)from;
    (void)to;
    errno = EBADF;
    n = source && target ? copy_file_range(source->fd, &from_offset, target->fd, &to_offset, len,
                                           (unsigned int)flags)
                         : -1;
    if (n < 0)
        reply(req, errno);
    else
        fuse_reply_write(req, (size_t)n);
    handle_put(fs->handles, source);
    handle_put(fs->handles, target);
}
