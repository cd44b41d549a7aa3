/* Listing directories. */
#include "base/file.h"
#include "base/mem.h"
#include "hostfs/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

/* getdents64(2) */
struct listed {
    uint64_t ino;
    int64_t next; /* the cookie that leads to the entry after this one */
    uint16_t len;
    uint8_t type;
    char name[];
};

void do_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct hostfs *fs = fs_of(req);
    struct node *n = node_get(fs->nodes, ino);
    uint64_t number = 0;
    int fd, error;

    if (!n) {
        reply(req, ESTALE);
        return;
    }
    fd = openat(n->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    error = fd < 0 ? errno : handle_add(fs->handles, HANDLE_DIRECTORY, fd, false, ino, &number);
    node_put(fs->nodes, n);
    fi->fh = number;
    if (error)
        reply(req, error);
    else if (fuse_reply_open(req, fi) < 0)
        handle_remove(fs->handles, number, HANDLE_DIRECTORY);
}

/* Makes listing[taken] the entry that `offset` leads to. 0, or an errno; nothing left is 0, too. */
static int read_ahead(struct handle *h, off_t offset)
{
    long n;

    if (!h->listing)
        h->listing = xmalloc(HANDLE_LISTING);
    if (offset != h->position) {
        if (lseek(h->fd, offset, SEEK_SET) < 0)
            return errno;
        h->listed = h->taken = 0;
        h->position = offset;
    }
    if (h->taken < h->listed)
        return 0;
    n = syscall(SYS_getdents64, h->fd, h->listing, HANDLE_LISTING);
    if (n < 0)
        return errno;
    h->taken = 0;
    h->listed = (size_t)n;
    return 0;
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* What an entry says of a file when it does not count as a look-up. */
static struct fuse_entry_param plain(const struct listed *d)
{
    return (struct fuse_entry_param){
        .attr = {.st_ino = d->ino, .st_mode = (mode_t)DTTOIF(d->type)}};
}

/* A listing that grows in the request's space. */
struct listing {
    fuse_req_t req;
    const struct node *dir;
    char *ptr;
    size_t len, max;
    bool plus;
};

/* Adds one entry. False when there is no room for it. */
static bool add(struct listing *l, const struct listed *d)
{
    struct hostfs *fs = fs_of(l->req);
    struct fuse_entry_param entry = plain(d);
    char *at = l->ptr + l->len;
    size_t room = l->max - l->len, need;

    if (!l->plus) {
        need = fuse_add_direntry(l->req, at, room, d->name, &entry.attr, d->next);
    } else {
        if (fuse_add_direntry_plus(l->req, NULL, 0, d->name, NULL, 0) > room)
            return false;
        /* Gone meanwhile, or the table is full: the name is there all the same. */
        if (!is_dot(d->name) && look_up(fs, l->dir, d->name, &entry) != 0)
            entry = plain(d);
        need = fuse_add_direntry_plus(l->req, at, room, d->name, &entry, d->next);
    }
    if (need > room)
        return false;
    l->len += need;
    return true;
}

static int fill(struct listing *l, struct handle *h, off_t offset)
{
    const struct hostfs *fs = fs_of(l->req);
    const struct listed *d;
    int error;

    for (;; offset = h->position) {
        error = read_ahead(h, offset);
        if (error || h->listed == 0)
            return l->len > 0 ? 0 : error;
        d = (const void *)(h->listing + h->taken);
        if (!is_hidden(fs, l->dir, d->name) && !add(l, d))
            return 0;
        h->taken += d->len;
        h->position = d->next;
    }
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, uint64_t number,
                 bool plus)
{
    struct hostfs *fs = fs_of(req);
    struct handle *h = handle_get(fs->handles, number, HANDLE_DIRECTORY);
    struct node *dir = h ? node_get(fs->nodes, h->node) : NULL;
    struct listing l = {
        .req = req, .dir = dir, .ptr = (char *)hostfs_current()->space, .max = size, .plus = plus};
    int error = EBADF;

    (void)ino;
    if (dir) {
        pthread_mutex_lock(&h->lock);
        error = fill(&l, h, offset);
        pthread_mutex_unlock(&h->lock);
    }
    node_put(fs->nodes, dir);
    handle_put(fs->handles, h);
    if (error)
        reply(req, error);
    else
        fuse_reply_buf(req, l.ptr, l.len);
}

void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                struct fuse_file_info *fi)
{
    list(req, ino, size, offset, fi->fh, false);
}

void do_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    list(req, ino, size, offset, fi->fh, true);
}

void do_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    release_handle(req, fi, HANDLE_DIRECTORY);
}

void do_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    (void)ino;
    sync_handle(req, fi, HANDLE_DIRECTORY, data_only);
}
