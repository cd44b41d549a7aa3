/* `dir:ROOTFS`: a root file system that lies there as a directory. */
#include "oci/dir.h"

#include "base/file.h"
#include "base/log.h"
#include "oci/image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

/* Names of a file with several: which node the inode number belongs to. */
struct seen {
    ino_t ino; /* 0: free */
    tree_node node;
    char *path;
};

struct scan {
    struct tree *tree;
    int rootfd;
    dev_t dev;
    int64_t mtime;
    uid_t euid;
    gid_t egid;
    struct seen *seen; /* open addressing, a power of two */
    size_t seen_len, seen_cap;
    char **dirs; /* still to be listed, relative to the root */
    size_t dirs_len, dirs_cap;
};

static void scan_free(struct scan *s)
{
    for (size_t i = 0; i < s->seen_cap; i++)
        free(s->seen[i].path);
    free(s->seen);
    while (s->dirs_len)
        free(s->dirs[--s->dirs_len]);
    free(s->dirs);
}

static struct seen *seen_slot(struct scan *s, ino_t ino)
{
    size_t i = (size_t)(ino * 0x9e3779b97f4a7c15u) & (s->seen_cap - 1);

    while (s->seen[i].ino && s->seen[i].ino != ino)
        i = (i + 1) & (s->seen_cap - 1);
    return &s->seen[i];
}

static struct seen *seen_find(struct scan *s, ino_t ino)
{
    struct seen *old = s->seen;
    size_t old_cap = s->seen_cap;

    if (s->seen_len * 2 >= s->seen_cap) {
        s->seen_cap = s->seen_cap ? s->seen_cap * 2 : 256;
        s->seen = xcalloc(s->seen_cap, sizeof(*s->seen));
        for (size_t i = 0; i < old_cap; i++)
            if (old[i].ino)
                *seen_slot(s, old[i].ino) = old[i];
        free(old);
    }
    return seen_slot(s, ino);
}

static void push_dir(struct scan *s, const char *path)
{
    if (s->dirs_len == s->dirs_cap) {
        s->dirs_cap = s->dirs_cap ? s->dirs_cap * 2 : 64;
        s->dirs = xreallocarray(s->dirs, s->dirs_cap, sizeof(*s->dirs));
    }
    s->dirs[s->dirs_len++] = xstrdup(path);
}

/*
 * Owners count when root looks; to anybody else what he owns himself is meant to be root's, as the
 * numbers of the building user must not get into the image.
 */
static void read_meta(const struct scan *s, const struct stat *st, struct tree_meta *meta)
{
    *meta = (struct tree_meta){
        .mode = st->st_mode,
        .uid = s->euid != 0 && st->st_uid == s->euid ? 0 : st->st_uid,
        .gid = s->euid != 0 && st->st_gid == s->egid ? 0 : st->st_gid,
        .mtime = s->mtime,
        .rdev_major = major(st->st_rdev),
        .rdev_minor = minor(st->st_rdev),
    };
}

/* Only capabilities mean something to the app; the others are the host's (labels, ACLs, ...). */
static int read_xattrs(struct scan *s, int dirfd, const char *name, tree_node node,
                       struct error *err)
{
    char self[64 + TREE_NAME_MAX], value[256];
    ssize_t len;

    snprintf(self, sizeof(self), "/proc/self/fd/%d/%s", dirfd, name);
    len = lgetxattr(self, "security.capability", value, sizeof(value));
    if (len < 0 && (errno == ENODATA || errno == EOPNOTSUPP || errno == ENOENT))
        return 0;
    if (len < 0)
        return error_sys(err, errno, "reading extended attributes of %s", name);
    return tree_add_xattr(s->tree, node, slice_str("security.capability"),
                          slice_of(value, (size_t)len), err);
}

static int add_file(struct scan *s, int dirfd, const char *name, const char *path,
                    const struct stat *st, const struct tree_meta *meta, struct error *err)
{
    struct seen *seen = NULL;
    tree_node node;

    if (st->st_nlink > 1) {
        seen = seen_find(s, st->st_ino);
        if (seen->ino)
            return tree_link(s->tree, slice_str(path), slice_str(seen->path), err);
    }
    if (tree_add(s->tree, slice_str(path), meta, &node, err) < 0)
        return -1;
    if (seen) {
        *seen = (struct seen){st->st_ino, node, xstrdup(path)};
        s->seen_len++;
    }
    if (!S_ISREG(st->st_mode))
        return 0;
    if (read_xattrs(s, dirfd, name, node, err) < 0)
        return -1;
    return tree_refer(s->tree, node, st, err);
}

static int add_symlink(struct scan *s, int dirfd, const char *name, const char *path,
                       const struct stat *st, struct tree_meta *meta, struct error *err)
{
    char target[TREE_PATH_MAX + 1];
    ssize_t len = readlinkat(dirfd, name, target, sizeof(target));

    if (len < 0)
        return error_sys(err, errno, "reading symbolic link %s", path);
    meta->mode = S_IFLNK | 0777;
    meta->target = slice_of(target, (size_t)len);
    len = add_file(s, dirfd, name, path, st, meta, err);
    meta->target = slice_of(NULL, 0); /* the text goes with this frame; the tree has its own */
    return (int)len;
}

static int add_one(struct scan *s, int dirfd, const char *above, const char *name,
                   struct error *err)
{
    char path[TREE_PATH_MAX + 2];
    struct tree_meta meta;
    struct stat st;

    if ((size_t)snprintf(path, sizeof(path), "%s%s%s", above, above[0] ? "/" : "", name) >
        TREE_PATH_MAX)
        return error_set(err, ERR_LIMIT, "%.80s...: path longer than %d bytes", path,
                         TREE_PATH_MAX);
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return error_sys(err, errno, "reading %s", path);
    read_meta(s, &st, &meta);
    if (S_ISSOCK(st.st_mode)) {
        log_info("image", "a socket is left out", kv_str("path", path));
        return 0;
    }
    if (S_ISLNK(st.st_mode))
        return add_symlink(s, dirfd, name, path, &st, &meta, err);
    if (!S_ISDIR(st.st_mode))
        return add_file(s, dirfd, name, path, &st, &meta, err);
    if (tree_add(s->tree, slice_str(path), &meta, NULL, err) < 0)
        return -1;
    if (st.st_dev == s->dev)
        push_dir(s, path);
    else
        log_warn("image", "another file system is mounted here; its contents are left out",
                 kv_str("path", path));
    return 0;
}

static int list_dir(struct scan *s, const char *path, struct error *err)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW,
                           .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH};
    int fd = (int)syscall(SYS_openat2, s->rootfd, path[0] ? path : ".", &how, sizeof(how));
    struct dirent *e;
    DIR *dir;
    int rc = 0;

    if (fd < 0)
        return error_sys(err, errno, "reading directory %s", path[0] ? path : "/");
    dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return error_sys(err, ENOMEM, "reading directory %s", path);
    }
    errno = 0;
    while (rc == 0 && (e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = add_one(s, fd, path, e->d_name, err);
        errno = 0;
    }
    if (rc == 0 && errno != 0)
        rc = error_sys(err, errno, "reading directory %s", path);
    closedir(dir);
    return rc;
}

static int scan_all(struct tree *tree, int rootfd, int64_t mtime, struct error *err)
{
    CLEANUP(scan_free)
    struct scan s = {
        .tree = tree, .rootfd = rootfd, .mtime = mtime, .euid = geteuid(), .egid = getegid()};
    struct tree_meta meta;
    struct stat st;

    if (fstat(rootfd, &st) < 0)
        return error_sys(err, errno, "reading the root directory");
    s.dev = st.st_dev;
    read_meta(&s, &st, &meta);
    if (tree_begin_layer(tree, err) < 0 || tree_add(tree, slice_of(NULL, 0), &meta, NULL, err) < 0)
        return -1;
    push_dir(&s, "");
    while (s.dirs_len) {
        AUTO_FREE char *path = s.dirs[--s.dirs_len];

        if (list_dir(&s, path, err) < 0)
            return -1;
    }
    return 0;
}

/* Without slashes at the end; a root of slashes only is "/". The caller frees it. */
static char *plain_root(const char *where)
{
    char *root = xstrdup(where);
    size_t len = strlen(root);

    while (len > 1 && root[len - 1] == '/')
        root[--len] = '\0';
    return root;
}

char *dir_config_read(const char *root, struct buf *out, struct error *err)
{
    AUTO_FREE char *plain = plain_root(root);
    char *path = xasprintf("%s.json", plain);

    if (file_read(path, out, err) == 0)
        return path;
    if (err && err->kind == ERR_NOT_FOUND)
        error_hint(err, "write the image configuration there, for instance {\"Cmd\": "
                        "[\"/bin/app\"]}; Entrypoint, Cmd, Env, WorkingDir and User count");
    free(path);
    return NULL;
}

static int read_config(const char *root, struct image_config *out, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    AUTO_FREE char *path = dir_config_read(root, &text, err);

    return path ? image_config_parse_object(buf_slice(&text), path, out, err) : -1;
}

static int load_dir(const char *where, const struct image_options *options, struct image *out,
                    struct error *err)
{
    AUTO_FREE char *root = plain_root(where);
    int fd;

    if (root[0] == '\0')
        return error_set(err, ERR_USAGE, "a directory is missing");
    fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, errno, "opening directory %s", root);
    tree_set_source(out->tree, fd);
    if (read_config(root, &out->config, err) < 0)
        return -1;
    return scan_all(out->tree, fd, options->dir_mtime, err);
}

const struct transport transport_dir = {"dir", load_dir};
