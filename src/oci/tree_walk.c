#include "oci/tree_priv.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* ---- entries ---- */

void tree_describe(const struct tree *t, uint32_t inode, struct tree_entry *out)
{
    const struct inode *n = inode_at(t, inode);

    *out = (struct tree_entry){.node = inode,
                               .mode = n->mode,
                               .uid = n->uid,
                               .gid = n->gid,
                               .mtime = n->mtime,
                               .nlink = n->nlink,
                               .capability = (n->flags & INODE_CAPABILITY) != 0,
                               .has_xattrs = n->xattrs != 0};
    if (S_ISREG(n->mode))
        out->size = n->file.size;
    if (S_ISLNK(n->mode))
        out->target = slice_of(t->names.base + n->link.offset, n->link.len);
    if (S_ISCHR(n->mode) || S_ISBLK(n->mode)) {
        out->rdev_major = n->dev.major;
        out->rdev_minor = n->dev.minor;
    }
}

void tree_root(const struct tree *t, struct tree_entry *out)
{
    tree_describe(t, 0, out);
}

/* Where a link leads: its target, from the directory it lies in. */
static size_t link_path(const struct tree *t, uint32_t dir, const struct inode *n, char *out)
{
    char above[TREE_PATH_MAX + 1];
    size_t len = 0;

    if (t->names.base[n->link.offset] != '/') {
        struct slice base = tree_path(t, dir, above);

        memcpy(out, base.ptr, base.len);
        len = base.len;
        out[len++] = '/';
    }
    memcpy(out + len, t->names.base + n->link.offset, n->link.len);
    return len + n->link.len;
}

bool tree_lookup(struct tree *t, struct slice path, bool follow, struct tree_entry *out)
{
    char text[TREE_PATH_MAX + 1], next[2 * TREE_PATH_MAX + 2];
    struct slice clean, parent, last;
    uint32_t dir, d = 0;

    for (unsigned int links = 0; links <= TREE_SYMLINKS_MAX; links++) {
        if (tree_clean(path, text, &clean, NULL) < 0)
            return false;
        tree_split_last(clean, &parent, &last);
        if (tree_descend(t, parent, false, &dir, NULL) < 0 || dir == UINT32_MAX)
            return false;
        d = last.len ? tree_child(t, dir, last) : 0;
        if (last.len && !d)
            return false;
        if (!follow || !S_ISLNK(inode_of(t, d)->mode)) {
            tree_describe(t, dentry_at(t, d)->inode, out);
            return true;
        }
        path = slice_of(next, link_path(t, dir, inode_of(t, d), next));
    }
    return false;
}

/* ---- the walk ---- */

/* Pushes `d` and what is left of it: the top is the first of them. */
static void push_left(const struct tree *t, struct ids *spine, uint32_t d)
{
    for (; d; d = dentry_at(t, d)->left)
        ids_push(spine, d);
}

/* One open directory: where its part of the two stacks begins. */
struct frame {
    uint32_t spine_base, pending_base;
    uint32_t path_len;
};

struct tree_walk {
    struct tree *t;
    struct ids spine;   /* entries whose left side is done; the top comes next */
    struct ids pending; /* directories given out whose children are still to come */
    struct frame *frames;
    size_t depth, cap;
    uint32_t next_ino;
    char path[TREE_PATH_MAX + 1];
};

static void enter(struct tree_walk *w, uint32_t dir)
{
    struct slice name = dentry_name(w->t, dir);
    uint32_t len = w->depth ? w->frames[w->depth - 1].path_len : 0;

    if (w->depth == w->cap) {
        w->cap = w->cap ? w->cap * 2 : 32;
        w->frames = xreallocarray(w->frames, w->cap, sizeof(*w->frames));
    }
    if (dir != 0) {
        memcpy(w->path + len, name.ptr, name.len);
        len += (uint32_t)name.len;
        w->path[len++] = '/';
    }
    w->frames[w->depth++] = (struct frame){(uint32_t)w->spine.len, (uint32_t)w->pending.len, len};
    push_left(w->t, &w->spine, inode_of(w->t, dir)->dir.root);
}

struct tree_walk *tree_walk_new(struct tree *t)
{
    struct tree_walk *w = xcalloc(1, sizeof(*w));

    w->t = t;
    w->next_ino = 1;
    for (uint32_t i = 0; i < t->inode_count; i++) {
        tree_tick(t);
        if (inode_at(t, i)->ino)
            inode_at(t, i)->ino = 0;
    }
    enter(w, 0);
    return w;
}

void tree_walk_free(struct tree_walk *w)
{
    if (!w)
        return;
    ids_free(&w->spine);
    ids_free(&w->pending);
    free(w->frames);
    free(w);
}

/* Whether "dir/" comes before `name`, knowing that `dir` does. */
static bool children_come_first(struct slice dir, struct slice name)
{
    return name.len <= dir.len || !slice_equal(dir, slice_of(name.ptr, dir.len)) ||
           name.ptr[dir.len] > '/';
}

static void number(struct tree_walk *w, struct tree_entry *out)
{
    struct inode *n = inode_at(w->t, out->node);

    out->first = true;
    if (n->nlink < 2 || S_ISDIR(n->mode)) {
        out->ino = w->next_ino++;
        return;
    }
    if (n->ino)
        out->first = false;
    else
        n->ino = w->next_ino++;
    out->ino = n->ino;
}

bool tree_walk_next(struct tree_walk *w, struct tree_entry *out)
{
    while (w->depth > 0) {
        struct frame *f = &w->frames[w->depth - 1];
        bool have = w->spine.len > f->spine_base;
        struct slice name = {0};
        uint32_t d = 0;

        tree_tick(w->t);
        if (have) {
            d = w->spine.ptr[w->spine.len - 1];
            name = dentry_name(w->t, d);
        }
        /* Names between "dir" and "dir/" all begin with "dir", so the open ones form a stack. */
        if (w->pending.len > f->pending_base) {
            uint32_t top = w->pending.ptr[w->pending.len - 1];

            if (!have || children_come_first(dentry_name(w->t, top), name)) {
                w->pending.len--;
                enter(w, top);
                continue;
            }
        }
        if (!have) {
            w->depth--;
            continue;
        }
        w->spine.len--;
        push_left(w->t, &w->spine, dentry_at(w->t, d)->right);
        tree_describe(w->t, dentry_at(w->t, d)->inode, out);
        out->dir = dentry_at(w->t, dentry_at(w->t, d)->parent)->inode;
        if (S_ISDIR(out->mode))
            ids_push(&w->pending, d);
        memcpy(w->path + f->path_len, name.ptr, name.len);
        out->path = slice_of(w->path, f->path_len + name.len);
        number(w, out);
        return true;
    }
    return false;
}

/* ---- one directory ---- */

struct tree_list {
    struct tree *t;
    struct ids spine;
};

struct tree_list *tree_list_new(struct tree *t, tree_node dir)
{
    struct tree_list *l = xcalloc(1, sizeof(*l));

    l->t = t;
    push_left(t, &l->spine, inode_at(t, dir)->dir.root);
    return l;
}

bool tree_list_next(struct tree_list *l, struct tree_entry *out)
{
    uint32_t d;

    tree_tick(l->t);
    if (l->spine.len == 0)
        return false;
    d = l->spine.ptr[--l->spine.len];
    push_left(l->t, &l->spine, dentry_at(l->t, d)->right);
    tree_describe(l->t, dentry_at(l->t, d)->inode, out);
    out->path = dentry_name(l->t, d);
    return true;
}

void tree_list_free(struct tree_list *l)
{
    if (!l)
        return;
    ids_free(&l->spine);
    free(l);
}

uint32_t tree_nodes(const struct tree *t)
{
    return t->inode_count;
}

/* ---- content ---- */

int tree_refer(struct tree *t, tree_node node, const struct stat *st, struct error *err)
{
    struct inode *n = inode_at(t, node);
    struct outside o = {.dev = st->st_dev,
                        .ino = st->st_ino,
                        .mtime_ns = st->st_mtim.tv_sec * INT64_C(1000000000) + st->st_mtim.tv_nsec,
                        .ctime_ns = st->st_ctim.tv_sec * INT64_C(1000000000) + st->st_ctim.tv_nsec};
    size_t at;

    /* The file has just been added, so its name is the newest. */
    o.dentry = t->dentry_count - 1;
    if (dentry_at(t, o.dentry)->inode != node)
        return error_set(err, ERR_INTERNAL, "a file outside must be referred to when it is added");
    if ((uint64_t)st->st_size > t->limits.content_max - t->content_total)
        return error_set(err, ERR_LIMIT, "the image's files hold more than %llu bytes",
                         (unsigned long long)t->limits.content_max);
    if (arena_take(&t->names, sizeof(o), 8, &at, err) < 0)
        return -1;
    memcpy(t->names.base + at, &o, sizeof(o));
    n->flags |= INODE_OUTSIDE;
    n->file.size = (uint64_t)st->st_size;
    n->file.offset = at;
    t->content_total += n->file.size;
    return 0;
}

static bool same_file(const struct outside *o, uint64_t size, const struct stat *st)
{
    return S_ISREG(st->st_mode) && o->dev == st->st_dev && o->ino == st->st_ino &&
           size == (uint64_t)st->st_size &&
           o->mtime_ns == st->st_mtim.tv_sec * INT64_C(1000000000) + st->st_mtim.tv_nsec &&
           o->ctime_ns == st->st_ctim.tv_sec * INT64_C(1000000000) + st->st_ctim.tv_nsec;
}

static int open_outside(struct tree *t, const struct inode *n, struct tree_content *c,
                        struct error *err)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
                           .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH};
    char text[TREE_PATH_MAX + 2];
    struct outside o;
    struct slice path;

    memcpy(&o, t->names.base + n->file.offset, sizeof(o));
    path = tree_path(t, o.dentry, text);
    c->name = slice_dup_str(path);
    c->fd = (int)syscall(SYS_openat2, t->source, c->name, &how, sizeof(how));
    if (c->fd < 0) {
        error_sys(err, errno, "opening %s of the root directory", c->name);
        tree_content_close(c);
        return -1;
    }
    c->own = true;
    c->expect = xcalloc(1, sizeof(*c->expect));
    if (fstat(c->fd, c->expect) < 0 || !same_file(&o, n->file.size, c->expect)) {
        error_set(err, ERR_INVALID, "%s of the root directory changed while it was read", c->name);
        tree_content_close(c);
        return -1;
    }
    return 0;
}

int tree_content_open(struct tree *t, tree_node node, struct tree_content *c, struct error *err)
{
    const struct inode *n = inode_at(t, node);

    *c = TREE_CONTENT_NONE;
    if (!S_ISREG(n->mode))
        return error_set(err, ERR_INTERNAL, "only regular files have content");
    c->left = n->file.size;
    if (n->flags & INODE_OUTSIDE)
        return open_outside(t, n, c, err);
    c->offset = n->file.offset;
    c->fd = t->spool;
    /* Holes at the end of the spool have to exist before they can be read. */
    if (t->spool_size < t->spool_end) {
        if (ftruncate(t->spool, (off_t)t->spool_end) < 0)
            return error_sys(err, errno, "making room for the image's content");
        t->spool_size = t->spool_end;
    }
    return 0;
}

static int check_unchanged(const struct tree_content *c, struct error *err)
{
    struct stat st;

    if (!c->expect)
        return 0;
    if (fstat(c->fd, &st) < 0)
        return error_sys(err, errno, "reading %s of the root directory", c->name);
    if (st.st_size != c->expect->st_size || st.st_mtim.tv_sec != c->expect->st_mtim.tv_sec ||
        st.st_mtim.tv_nsec != c->expect->st_mtim.tv_nsec)
        return error_set(err, ERR_INVALID, "%s of the root directory changed while it was read",
                         c->name);
    return 0;
}

ssize_t tree_content_read(struct tree_content *c, void *ptr, size_t len, struct error *err)
{
    ssize_t n;

    if (len > c->left)
        len = (size_t)c->left;
    if (len == 0)
        return check_unchanged(c, err);
    do
        n = pread(c->fd, ptr, len, (off_t)c->offset);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_sys(err, errno, "reading %s", c->name ? c->name : "the image's content");
    if (n == 0)
        return error_set(err, ERR_INVALID, "%s ends early: it changed while it was read",
                         c->name ? c->name : "the image's content");
    c->offset += (uint64_t)n;
    c->left -= (uint64_t)n;
    return n;
}

void tree_content_close(struct tree_content *c)
{
    if (c->own)
        fd_close(&c->fd);
    free(c->expect);
    free(c->name);
    *c = TREE_CONTENT_NONE;
}

/* ---- the whole ---- */

int tree_capabilities(struct tree *t, enum tree_capabilities what, struct error *err)
{
    char text[TREE_PATH_MAX + 1];
    uint64_t count = 0, others = 0;

    for (uint32_t d = 1; d < t->dentry_count; d++) {
        struct inode *n = inode_of(t, d);
        struct slice path;

        tree_tick(t);
        if (dentry_at(t, d)->flags & DENTRY_DEAD)
            continue;
        others += n->xattrs != 0 && !(n->flags & INODE_CAPABILITY);
        if (!(n->flags & INODE_CAPABILITY) || what == TREE_CAPABILITIES_KEEP)
            continue;
        if (what == TREE_CAPABILITIES_REFUSE) {
            path = tree_path(t, d, text);
            error_set(err, ERR_UNSUPPORTED,
                      "/%.*s carries file capabilities, which --root-format cpio cannot hold",
                      (int)path.len, (const char *)path.ptr);
            return error_hint(err, "build with --root-format erofs, or with --drop-capabilities if "
                                   "the program can do without them (the app runs as root by "
                                   "default)");
        }
        n->flags &= (uint16_t)~INODE_CAPABILITY;
        count++;
    }
    if (count)
        log_warn("image", "file capabilities dropped, as asked for", kv_uint("files", count));
    if (others)
        log_info("image", "extended attributes other than capabilities are left out",
                 kv_uint("files", others));
    return 0;
}

void tree_stats(struct tree *t, struct tree_stats *out)
{
    *out = (struct tree_stats){0};
    for (uint32_t d = 1; d < t->dentry_count; d++) {
        tree_tick(t);
        if (!(dentry_at(t, d)->flags & DENTRY_DEAD))
            out->entries++;
    }
    for (uint32_t i = 1; i < t->inode_count; i++) {
        const struct inode *n = inode_at(t, i);

        tree_tick(t);
        if (n->nlink && S_ISREG(n->mode)) {
            out->files++;
            out->content += n->file.size;
        }
    }
}

int tree_check(struct tree *t, struct error *err)
{
    AUTO_FREE uint32_t *links = xcalloc(t->inode_count, sizeof(*links));
    AUTO_FREE uint8_t *last = xmalloc(TREE_PATH_MAX + 1);
    AUTO_TREE_WALK struct tree_walk *w = tree_walk_new(t);
    struct tree_entry e;
    struct tree_stats stats;
    uint64_t count = 0;
    size_t last_len = 0;

    tree_stats(t, &stats);
    while (tree_walk_next(w, &e)) {
        if (++count > stats.entries)
            return error_set(err, ERR_INTERNAL, "the tree has a circle");
        if (e.path.len > TREE_PATH_MAX ||
            (count > 1 && slice_compare(slice_of(last, last_len), e.path) >= 0))
            return error_set(err, ERR_INTERNAL, "%.*s: out of order", (int)e.path.len,
                             (const char *)e.path.ptr);
        memcpy(last, e.path.ptr, e.path.len);
        last_len = e.path.len;
        links[e.node]++;
        if (S_ISREG(e.mode) && !(inode_at(t, e.node)->flags & INODE_OUTSIDE) &&
            inode_at(t, e.node)->file.offset + e.size > t->spool_end)
            return error_set(err, ERR_INTERNAL, "content lies outside the spool");
    }
    if (count != stats.entries)
        return error_set(err, ERR_INTERNAL, "%llu of %llu entries can be reached",
                         (unsigned long long)count, (unsigned long long)stats.entries);
    for (uint32_t i = 1; i < t->inode_count; i++)
        if (links[i] != inode_at(t, i)->nlink || (links[i] > 1 && S_ISDIR(inode_at(t, i)->mode)))
            return error_set(err, ERR_INTERNAL, "a link count is %u, not %u", inode_at(t, i)->nlink,
                             links[i]);
    return 0;
}
