#include "eif/unpack.h"

#include "base/file.h"
#include "base/log.h"
#include "eif/ramdisk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <search.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

/* A directory whose attributes are set at the end, when nothing more is made in it. */
struct dir {
    char *path;
    unsigned int depth;
    size_t order;
    struct cpio_entry attributes; /* its strings are not used */
};

/* The first name of a file that has several. */
struct link {
    uint32_t archive, dev_major, dev_minor, ino;
    char *path; /* NULL when it is outside the prefix */
};

struct unpack {
    const struct unpack_source *source;
    const struct unpack_options *options;
    int root;
    struct unpack_result result;
    struct error *err;

    char path[CPIO_NAME_MAX + 1]; /* of the entry, cleaned, below the root */
    char *base;                   /* its last part */
    size_t parent_len;

    int parent_fd; /* of parent_path, or -1 */
    char parent_path[CPIO_NAME_MAX + 1];

    struct dir *dirs;
    size_t dir_count, dir_cap;
    void *links; /* tree of struct link */
    size_t memory;
};

static int bad(struct unpack *u, const char *why)
{
    return error_set(u->err, ERR_INVALID, "unpacking %s: %s", u->path, why);
}

static int failed(struct unpack *u)
{
    int sys = errno;

    error_sys(u->err, sys, "unpacking %s", u->path);
    if (sys == ENOSPC || sys == EDQUOT)
        error_hint(u->err, "free some space there, or choose another place");
    return -1;
}

static int remember(struct unpack *u, size_t len)
{
    u->memory += sizeof(struct dir) + len + 1;
    if (u->memory > UNPACK_MEMORY_MAX)
        return error_set(u->err, ERR_LIMIT,
                         "unpacking %s: too many directories and hard links in one ramdisk",
                         u->path);
    return 0;
}

/* ---- names ---- */

/* Writes the cleaned name to u->path: parts joined by one slash, `.` dropped, `..` refused. */
static int clean_name(struct unpack *u, struct slice name)
{
    size_t len = 0, start = 0;

    memcpy(u->path, name.ptr, name.len);
    u->path[name.len] = '\0'; /* for the message */
    for (size_t i = 0; i <= name.len; i++) {
        struct slice part;

        if (i < name.len && name.ptr[i] != '/')
            continue;
        part = slice_of(name.ptr + start, i - start);
        start = i + 1;
        if (part.len == 0 || slice_equal_str(part, "."))
            continue;
        if (slice_equal_str(part, ".."))
            return bad(u, "a path with \"..\" in it");
        if (len > 0)
            u->path[len++] = '/';
        memcpy(u->path + len, part.ptr, part.len);
        len += part.len;
    }
    u->path[len] = '\0';
    return 0;
}

/* False when the entry is outside; strips the prefix otherwise. */
static bool strip_prefix(struct unpack *u)
{
    const char *prefix = u->options->prefix;
    size_t len = prefix ? strlen(prefix) : 0;

    while (len > 0 && prefix[len - 1] == '/')
        len--;
    if (len == 0)
        return true;
    if (strncmp(u->path, prefix, len) != 0 || (u->path[len] != '/' && u->path[len] != '\0'))
        return false;
    len += u->path[len] == '/';
    memmove(u->path, u->path + len, strlen(u->path + len) + 1);
    return true;
}

/* ---- walking without following ---- */

/* In one call where the kernel can (Linux 5.6, not under an old container's filter); -1 if not. */
static int open_beneath(const struct unpack *u, const char *path, size_t len)
{
    const struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
                                 .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    char copy[CPIO_NAME_MAX + 1];

    memcpy(copy, path, len);
    copy[len] = '\0';
    return (int)syscall(SYS_openat2, u->root, len ? copy : ".", &how, sizeof(how));
}

/* Part by part, making directories that are missing. */
static int walk_parts(const struct unpack *u, const char *path, size_t len)
{
    char part[NAME_MAX + 1];
    int fd = openat(u->root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

    for (size_t i = 0; i < len && fd >= 0;) {
        const char *slash = memchr(path + i, '/', len - i);
        size_t n = slash ? (size_t)(slash - (path + i)) : len - i;
        int next;

        if (n > NAME_MAX) {
            fd_close(&fd);
            errno = ENAMETOOLONG;
            break;
        }
        memcpy(part, path + i, n);
        part[n] = '\0';
        next = openat(fd, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0 && errno == ENOENT && mkdirat(fd, part, 0755) == 0)
            next = openat(fd, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        fd_close(&fd);
        fd = next;
        i += n + 1;
    }
    return fd;
}

/* Opens, and makes where missing, the directories of path[0..len). The caller closes it. */
static int walk(struct unpack *u, const char *path, size_t len)
{
    int fd = open_beneath(u, path, len);

    if (fd < 0)
        fd = walk_parts(u, path, len);
    if (fd >= 0)
        return fd;
    if (errno == ENOTDIR || errno == ELOOP)
        return bad(u, "a directory of its path is a symbolic link or a file");
    return failed(u);
}

static int open_parent(struct unpack *u)
{
    char *slash = strrchr(u->path, '/');

    u->base = slash ? slash + 1 : u->path;
    u->parent_len = slash ? (size_t)(slash - u->path) : 0;
    if (u->parent_fd >= 0 && strncmp(u->parent_path, u->path, u->parent_len) == 0 &&
        u->parent_path[u->parent_len] == '\0')
        return 0;
    fd_close(&u->parent_fd);
    u->parent_fd = walk(u, u->path, u->parent_len);
    if (u->parent_fd < 0)
        return -1;
    memcpy(u->parent_path, u->path, u->parent_len);
    u->parent_path[u->parent_len] = '\0';
    return 0;
}

/* Removes what is in the way of the entry. A directory that is not empty stays, as at boot. */
static int make_way(struct unpack *u)
{
    if (unlinkat(u->parent_fd, u->base, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno == EISDIR && unlinkat(u->parent_fd, u->base, AT_REMOVEDIR) == 0)
        return 0;
    return failed(u);
}

/* ---- attributes ---- */

static mode_t permissions(const struct unpack *u, const struct cpio_entry *e)
{
    return e->mode & (u->options->owners ? 07777 : 01777);
}

static void times_of(const struct cpio_entry *e, struct timespec out[2])
{
    out[0] = out[1] = (struct timespec){.tv_sec = (time_t)e->mtime};
}

/* Owner first: changing it clears the set-id bits. */
static int set_attributes(struct unpack *u, int fd, const struct cpio_entry *e)
{
    struct timespec times[2];

    times_of(e, times);
    if ((u->options->owners && fchown(fd, e->uid, e->gid) < 0) ||
        fchmod(fd, permissions(u, e)) < 0 || futimens(fd, times) < 0)
        return failed(u);
    if (u->options->owners && e->capability.len > 0 &&
        fsetxattr(fd, "security.capability", e->capability.ptr, e->capability.len, 0) < 0)
        return failed(u);
    return 0;
}

static int set_link_attributes(struct unpack *u, const struct cpio_entry *e)
{
    struct timespec times[2];

    times_of(e, times);
    if ((u->options->owners &&
         fchownat(u->parent_fd, u->base, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0) ||
        utimensat(u->parent_fd, u->base, times, AT_SYMLINK_NOFOLLOW) < 0)
        return failed(u);
    return 0;
}

/* ---- the kinds ---- */

static int write_content(struct unpack *u, int fd)
{
    struct slice piece;
    int rc;

    while ((rc = u->source->data(u->source->arg, &piece, u->err)) > 0) {
        if (fd_write_all(fd, piece.ptr, piece.len, u->path, u->err) < 0)
            return -1;
        u->result.bytes += piece.len;
    }
    return rc;
}

static int compare_links(const void *a, const void *b)
{
    return memcmp(a, b, offsetof(struct link, path));
}

/*
 * Makes the entry another name of a file unpacked before. The earlier path is walked anew: what is
 * there now may have been replaced, and the name must not lead out through a symbolic link.
 */
static int link_to(struct unpack *u, const struct link *first)
{
    const char *slash = first->path ? strrchr(first->path, '/') : NULL;
    AUTO_FD int fd = -1;
    int rc;

    if (!first->path)
        return bad(u, "a hard link to a file that is not unpacked");
    fd = walk(u, first->path, slash ? (size_t)(slash - first->path) : 0);
    if (fd < 0)
        return -1;
    rc = linkat(fd, slash ? slash + 1 : first->path, u->parent_fd, u->base, 0);
    return rc < 0 ? failed(u) : 0;
}

static int remember_link(struct unpack *u, const struct link *key, bool outside)
{
    struct link *l;

    if (remember(u, outside ? 0 : strlen(u->path)) < 0)
        return -1;
    l = xmemdup(key, sizeof(*key));
    l->path = outside ? NULL : xstrdup(u->path);
    if (!tsearch(l, &u->links, compare_links))
        abort();
    return 0;
}

static struct link link_key(const struct cpio_entry *e)
{
    struct link key;

    memset(&key, 0, sizeof(key)); /* compared as memory */
    key.archive = e->archive;
    key.dev_major = e->dev_major;
    key.dev_minor = e->dev_minor;
    key.ino = e->ino;
    return key;
}

/*
 * Where names share a file, either the first or the last of them carries the content (ours and the
 * kernel's documentation: the first; GNU cpio: the last), the others say 0 bytes.
 */
static int make_file(struct unpack *u, const struct cpio_entry *e)
{
    struct link key = link_key(e);
    struct link **first = e->nlink > 1 ? tfind(&key, &u->links, compare_links) : NULL;
    int flags = O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    struct stat st;
    AUTO_FD int fd = -1;

    if (make_way(u) < 0)
        return -1;
    if (first) {
        if (link_to(u, *first) < 0)
            return -1;
        if (e->size == 0)
            return 0;
        fd = openat(u->parent_fd, u->base, flags | O_TRUNC);
    } else {
        fd = openat(u->parent_fd, u->base, flags | O_CREAT | O_EXCL, 0600);
    }
    if (fd < 0 || fstat(fd, &st) < 0)
        return failed(u);
    if (!S_ISREG(st.st_mode))
        return bad(u, "a hard link with content to something that is not a file");
    if (write_content(u, fd) < 0 || set_attributes(u, fd, e) < 0)
        return -1;
    return e->nlink > 1 && !first ? remember_link(u, &key, false) : 0;
}

static int make_symlink(struct unpack *u, const struct cpio_entry *e)
{
    char target[CPIO_TARGET_MAX + 1];
    struct slice piece;
    size_t len = 0;
    int rc;

    if (e->size == 0 || e->size > CPIO_TARGET_MAX)
        return bad(u, "a symbolic link with an empty or too long target");
    while ((rc = u->source->data(u->source->arg, &piece, u->err)) > 0) {
        memcpy(target + len, piece.ptr, piece.len);
        len += piece.len;
    }
    if (rc < 0)
        return -1;
    target[len] = '\0';
    if (make_way(u) < 0)
        return -1;
    if (symlinkat(target, u->parent_fd, u->base) < 0)
        return failed(u);
    return set_link_attributes(u, e);
}

static int make_node(struct unpack *u, const struct cpio_entry *e)
{
    if (make_way(u) < 0)
        return -1;
    if (mknodat(u->parent_fd, u->base, (e->mode & S_IFMT) | 0600,
                makedev(e->rdev_major, e->rdev_minor)) < 0)
        return failed(u);
    if (u->options->owners &&
        fchownat(u->parent_fd, u->base, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return failed(u);
    /* The node was made a moment ago in a directory that is the caller's own. */
    if (fchmodat(u->parent_fd, u->base, permissions(u, e), 0) < 0)
        return failed(u);
    return set_link_attributes(u, e);
}

static int remember_dir(struct unpack *u, const struct cpio_entry *e)
{
    struct dir *d;

    if (remember(u, strlen(u->path)) < 0)
        return -1;
    if (u->dir_count == u->dir_cap) {
        u->dir_cap = u->dir_cap ? 2 * u->dir_cap : 64;
        u->dirs = xreallocarray(u->dirs, u->dir_cap, sizeof(*u->dirs));
    }
    d = &u->dirs[u->dir_count];
    *d = (struct dir){xstrdup(u->path), 0, u->dir_count, *e};
    for (const char *p = d->path; *p; p++)
        d->depth += *p == '/';
    d->depth += d->path[0] != '\0';
    u->dir_count++;
    return 0;
}

static int make_dir(struct unpack *u, const struct cpio_entry *e)
{
    struct stat st;

    if (mkdirat(u->parent_fd, u->base, 0700) < 0) {
        if (errno != EEXIST || fstatat(u->parent_fd, u->base, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return failed(u);
        if (!S_ISDIR(st.st_mode) && (make_way(u) < 0 || mkdirat(u->parent_fd, u->base, 0700) < 0))
            return failed(u);
    }
    return remember_dir(u, e);
}

/* ---- all of it ---- */

static int unpack_entry(struct unpack *u, const struct cpio_entry *e)
{
    struct link key = link_key(e);

    if (clean_name(u, e->name) < 0)
        return -1;
    if (!strip_prefix(u)) {
        if (S_ISREG(e->mode) && e->nlink > 1 && !tfind(&key, &u->links, compare_links))
            return remember_link(u, &key, true);
        return 0;
    }
    if (u->path[0] == '\0')
        return S_ISDIR(e->mode) ? remember_dir(u, e) : bad(u, "the root is not a directory");
    if (S_ISSOCK(e->mode) || ((S_ISCHR(e->mode) || S_ISBLK(e->mode)) && !u->options->devices)) {
        u->result.skipped++;
        return 0;
    }
    if (open_parent(u) < 0)
        return -1;
    u->result.entries++;
    switch (e->mode & S_IFMT) {
    case S_IFREG:
        return make_file(u, e);
    case S_IFDIR:
        return make_dir(u, e);
    case S_IFLNK:
        return make_symlink(u, e);
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
        return make_node(u, e);
    default:
        return bad(u, "unknown file type");
    }
}

/* Children first, so that a parent may lose its permissions; of the same path the later wins. */
static int compare_dirs(const void *a, const void *b)
{
    const struct dir *x = a, *y = b;

    if (x->depth != y->depth)
        return x->depth > y->depth ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static int finish_dirs(struct unpack *u)
{
    if (u->dir_count > 0)
        qsort(u->dirs, u->dir_count, sizeof(*u->dirs), compare_dirs);
    for (size_t i = 0; i < u->dir_count; i++) {
        const struct dir *d = &u->dirs[i];
        AUTO_FD int fd = -1;

        memcpy(u->path, d->path, strlen(d->path) + 1); /* which came from there */
        if (u->path[0] != '\0' && open_parent(u) < 0)
            return -1;
        fd = openat(u->path[0] ? u->parent_fd : u->root, u->path[0] ? u->base : ".",
                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        /* A later entry may have taken the directory's place. */
        if (fd < 0 && (errno == ENOTDIR || errno == ELOOP || errno == ENOENT))
            continue;
        if (fd < 0)
            return failed(u);
        if (set_attributes(u, fd, &d->attributes) < 0)
            return -1;
    }
    return 0;
}

static void free_link(void *p)
{
    struct link *l = p;

    free(l->path);
    free(l);
}

static int unpack_all(struct unpack *u)
{
    struct cpio_entry e;
    int rc;

    while ((rc = u->source->next(u->source->arg, &e, u->err)) > 0)
        if (unpack_entry(u, &e) < 0)
            return -1;
    return rc < 0 ? -1 : finish_dirs(u);
}

static int next_of_cpio(void *arg, struct cpio_entry *out, struct error *err)
{
    return cpio_reader_next(arg, out, err);
}

static int data_of_cpio(void *arg, struct slice *piece, struct error *err)
{
    return cpio_reader_data(arg, piece, err);
}

struct unpack_source unpack_from_cpio(struct cpio_reader *r)
{
    return (struct unpack_source){next_of_cpio, data_of_cpio, r};
}

int unpack_archive(const struct unpack_source *source, int dir_fd,
                   const struct unpack_options *options, struct unpack_result *out,
                   struct error *err)
{
    struct unpack *u = xcalloc(1, sizeof(*u));
    int rc;

    u->source = source;
    u->options = options;
    u->root = dir_fd;
    u->err = err;
    u->parent_fd = -1;
    rc = unpack_all(u);
    if (rc == 0 && out)
        *out = u->result;
    if (rc == 0 && u->result.skipped)
        log_debug("eif", "device nodes and sockets left out", kv_uint("count", u->result.skipped));
    for (size_t i = 0; i < u->dir_count; i++)
        free(u->dirs[i].path);
    free(u->dirs);
    tdestroy(u->links, free_link);
    fd_close(&u->parent_fd);
    free(u);
    return rc;
}

static int next_of_ramdisk(void *arg, struct cpio_entry *out, struct error *err)
{
    return eif_ramdisk_next(arg, out, err);
}

static int data_of_ramdisk(void *arg, struct slice *piece, struct error *err)
{
    return eif_ramdisk_data(arg, piece, err);
}

int eif_unpack_ramdisk(int eif_fd, unsigned int index, int dir_fd,
                       const struct unpack_options *options, struct error *err)
{
    AUTO_EIF_RAMDISK struct eif_ramdisk *disk = eif_ramdisk_open(eif_fd, "the image", index, err);
    const struct unpack_source source = {next_of_ramdisk, data_of_ramdisk, disk};

    if (!disk)
        return -1;
    if (unpack_archive(&source, dir_fd, options, NULL, err) < 0)
        return error_wrap(err, "ramdisk %u", index);
    return 0;
}
