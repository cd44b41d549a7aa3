#include "oci/tree_priv.h"

#include "base/file.h"

#include <errno.h>
#include <sys/random.h>
#include <sys/stat.h>

#define NAMES_MAX    ((size_t)2 << 30)
#define RELAX_EVERY  128
#define RESIDENT_MAX ((size_t)24 << 20)

static int take_inode(struct tree *t, uint32_t *out, struct error *err)
{
    size_t at;

    if (t->inode_count > t->limits.entries_max)
        return error_set(err, ERR_LIMIT, "the image has more than %u files and directories",
                         t->limits.entries_max);
    if (arena_take(&t->inodes, sizeof(struct inode), 8, &at, err) < 0)
        return -1;
    *out = t->inode_count++;
    return 0;
}

static int take_dentry(struct tree *t, uint32_t parent, struct slice name, uint32_t *out,
                       struct error *err)
{
    struct dentry *e;
    size_t at, text;

    if (t->dentry_count > t->limits.entries_max)
        return error_set(err, ERR_LIMIT, "the image has more than %u files and directories",
                         t->limits.entries_max);
    if (arena_take(&t->names, name.len, 1, &text, err) < 0 ||
        arena_take(&t->dentries, sizeof(struct dentry), 4, &at, err) < 0)
        return -1;
    memcpy(t->names.base + text, name.ptr, name.len);
    *out = t->dentry_count++;
    e = dentry_at(t, *out);
    e->name = (uint32_t)text;
    e->name_len = (uint8_t)name.len;
    e->parent = parent;
    e->layer = t->layer;
    return 0;
}

static int make_root(struct tree *t, struct error *err)
{
    size_t at;
    uint32_t i;

    /* Offset 0 of `names` means "none" for extended attributes. */
    if (arena_take(&t->names, 8, 8, &at, err) < 0 || take_inode(t, &i, err) < 0 ||
        arena_take(&t->dentries, sizeof(struct dentry), 4, &at, err) < 0)
        return -1;
    t->dentry_count = 1;
    inode_at(t, 0)->mode = S_IFDIR | 0755;
    inode_at(t, 0)->nlink = 1;
    return 0;
}

struct tree *tree_new(const struct tree_limits *limits, struct error *err)
{
    struct tree *t = xcalloc(1, sizeof(*t));
    size_t entries;

    t->limits = limits ? *limits : TREE_LIMITS_DEFAULT;
    t->spool = t->source = -1;
    t->dentries = t->inodes = t->names = ARENA_NONE;
    entries = (size_t)t->limits.entries_max + 2;
    if (getrandom(&t->seed, sizeof(t->seed), 0) != sizeof(t->seed))
        t->seed = 1;
    if (arena_open(&t->dentries, entries * sizeof(struct dentry), "entries", err) < 0 ||
        arena_open(&t->inodes, entries * sizeof(struct inode), "entries", err) < 0 ||
        arena_open(&t->names, NAMES_MAX, "names and attributes", err) < 0 ||
        (t->spool = file_temp(err)) < 0 || make_root(t, err) < 0) {
        tree_free(t);
        return NULL;
    }
    return t;
}

void tree_free(struct tree *t)
{
    if (!t)
        return;
    arena_close(&t->dentries);
    arena_close(&t->inodes);
    arena_close(&t->names);
    fd_close(&t->spool);
    fd_close(&t->source);
    free(t);
}

void ids_push(struct ids *v, uint32_t id)
{
    if (v->len == v->cap) {
        v->cap = v->cap ? v->cap * 2 : 64;
        v->ptr = xreallocarray(v->ptr, v->cap, sizeof(*v->ptr));
    }
    v->ptr[v->len++] = id;
}

void tree_tick(struct tree *t)
{
    if (++t->ticks % RELAX_EVERY != 0 || t->dentries.used + t->inodes.used < RESIDENT_MAX / 2 ||
        arena_resident() < RESIDENT_MAX)
        return;
    arena_relax(&t->dentries);
    arena_relax(&t->inodes);
    arena_relax(&t->names);
}

/* ---- one directory: a treap whose priorities are a keyed mix of the entry's number ---- */

static uint64_t priority(const struct tree *t, uint32_t d)
{
    uint64_t x = t->seed + d * 0x9e3779b97f4a7c15u;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint32_t tree_child(struct tree *t, uint32_t dir, struct slice name)
{
    uint32_t d = inode_of(t, dir)->dir.root;

    tree_tick(t);
    while (d) {
        int order = slice_compare(name, dentry_name(t, d));

        if (order == 0)
            return d;
        d = order < 0 ? dentry_at(t, d)->left : dentry_at(t, d)->right;
    }
    return 0;
}

void tree_attach(struct tree *t, uint32_t dir, uint32_t d)
{
    struct dentry *e = dentry_at(t, d);
    struct slice name = dentry_name(t, d);
    uint64_t prio = priority(t, d);
    uint32_t *link = &inode_of(t, dir)->dir.root;
    uint32_t *less = &e->left, *more = &e->right;
    uint32_t at;

    while (*link && priority(t, *link) > prio)
        link = slice_compare(name, dentry_name(t, *link)) < 0 ? &dentry_at(t, *link)->left
                                                              : &dentry_at(t, *link)->right;
    /* What hung here is split into names below and above the new one. */
    at = *link;
    *link = d;
    while (at) {
        struct dentry *x = dentry_at(t, at);

        if (slice_compare(dentry_name(t, at), name) < 0) {
            *less = at;
            less = &x->right;
            at = x->right;
        } else {
            *more = at;
            more = &x->left;
            at = x->left;
        }
    }
    *less = *more = 0;
}

void tree_detach(struct tree *t, uint32_t dir, uint32_t d)
{
    struct slice name = dentry_name(t, d);
    uint32_t *link = &inode_of(t, dir)->dir.root;
    uint32_t less, more;

    while (*link != d)
        link = slice_compare(name, dentry_name(t, *link)) < 0 ? &dentry_at(t, *link)->left
                                                              : &dentry_at(t, *link)->right;
    less = dentry_at(t, d)->left;
    more = dentry_at(t, d)->right;
    while (less && more) {
        if (priority(t, less) > priority(t, more)) {
            *link = less;
            link = &dentry_at(t, less)->right;
            less = *link;
        } else {
            *link = more;
            link = &dentry_at(t, more)->left;
            more = *link;
        }
    }
    *link = less ? less : more;
    dentry_at(t, d)->left = dentry_at(t, d)->right = 0;
}

/* ---- paths ---- */

/* The next component of a path, skipping empty ones and "."; false at the end. */
static bool next_name(struct slice *path, struct slice *name)
{
    while (path->len) {
        const uint8_t *slash = memchr(path->ptr, '/', path->len);
        size_t len = slash ? (size_t)(slash - path->ptr) : path->len;

        *name = slice_of(path->ptr, len);
        path->ptr += slash ? len + 1 : len;
        path->len -= slash ? len + 1 : len;
        if (len > 0 && !(len == 1 && name->ptr[0] == '.'))
            return true;
    }
    return false;
}

int tree_clean(struct slice path, char *out, struct slice *clean, struct error *err)
{
    size_t len = 0;
    struct slice name, rest = path;

    if (path.len && memchr(path.ptr, '\0', path.len))
        return error_set(err, ERR_INVALID, "a name holds a zero byte");
    while (next_name(&rest, &name)) {
        if (slice_equal_str(name, "..")) {
            while (len > 0 && out[--len] != '/')
                ;
            continue;
        }
        if (name.len > TREE_NAME_MAX)
            return error_set(err, ERR_LIMIT, "name %.*s...: longer than %d bytes", 40,
                             (const char *)name.ptr, TREE_NAME_MAX);
        if (len + 1 + name.len > TREE_PATH_MAX)
            return error_set(err, ERR_LIMIT, "path %.*s...: longer than %d bytes", 80,
                             (const char *)path.ptr, TREE_PATH_MAX);
        if (len > 0)
            out[len++] = '/';
        memcpy(out + len, name.ptr, name.len);
        len += name.len;
    }
    *clean = slice_of(out, len);
    return 0;
}

void tree_split_last(struct slice path, struct slice *parent, struct slice *last)
{
    const uint8_t *slash = path.len ? memrchr(path.ptr, '/', path.len) : NULL;

    if (!slash) {
        *parent = slice_of(path.ptr, 0);
        *last = path;
        return;
    }
    *parent = slice_of(path.ptr, (size_t)(slash - path.ptr));
    *last = slice_of(slash + 1, path.len - parent->len - 1);
}

struct slice tree_path(const struct tree *t, uint32_t d, char *out)
{
    size_t at = TREE_PATH_MAX + 1;

    while (d) {
        struct slice name = dentry_name(t, d);

        if (at <= TREE_PATH_MAX)
            out[--at] = '/';
        at -= name.len;
        memcpy(out + at, name.ptr, name.len);
        d = dentry_at(t, d)->parent;
    }
    return slice_of(out + at, TREE_PATH_MAX + 1 - at);
}

static int new_entry(struct tree *t, uint32_t dir, struct slice name, uint32_t *out,
                     struct error *err)
{
    if (inode_of(t, dir)->dir.path_len + 1 + name.len > TREE_PATH_MAX)
        return error_set(err, ERR_LIMIT, "an entry %.*s lies deeper than paths of %d bytes reach",
                         (int)name.len, (const char *)name.ptr, TREE_PATH_MAX);
    return take_dentry(t, dir, name, out, err);
}

static uint32_t child_path_len(const struct tree *t, uint32_t dir, uint32_t d)
{
    uint32_t above = inode_of(t, dir)->dir.path_len;

    return above + (above ? 1 : 0) + dentry_at(t, d)->name_len;
}

static int make_parent(struct tree *t, uint32_t dir, struct slice name, uint32_t *out,
                       struct error *err)
{
    struct inode *n;
    uint32_t i;

    if (take_inode(t, &i, err) < 0 || new_entry(t, dir, name, out, err) < 0)
        return -1;
    dentry_at(t, *out)->inode = i;
    n = inode_at(t, i);
    n->mode = S_IFDIR | 0755;
    n->nlink = 1;
    n->dir.path_len = child_path_len(t, dir, *out);
    tree_attach(t, dir, *out);
    return 0;
}

/* Puts the target of a link before what is left of the path. */
static int expand(const struct tree *t, const struct inode *link, struct slice *left,
                  struct buf *text, struct error *err)
{
    struct buf next = BUF(4 * TREE_PATH_MAX);

    if (buf_append(&next, t->names.base + link->link.offset, link->link.len) < 0 ||
        buf_append_byte(&next, '/') < 0 || buf_append(&next, left->ptr, left->len) < 0) {
        buf_free(&next);
        return error_set(err, ERR_LIMIT, "symbolic links make a path longer than %d bytes",
                         4 * TREE_PATH_MAX);
    }
    buf_free(text);
    *text = next;
    *left = buf_slice(text);
    return 0;
}

int tree_descend(struct tree *t, struct slice path, bool create, uint32_t *dir, struct error *err)
{
    AUTO_BUF struct buf text = BUF(4 * TREE_PATH_MAX);
    struct slice left = path, name;
    unsigned int links = 0;
    uint32_t at = 0;

    *dir = UINT32_MAX;
    while (next_name(&left, &name)) {
        const struct inode *n;
        uint32_t d;

        if (slice_equal_str(name, "..")) {
            at = dentry_at(t, at)->parent;
            continue;
        }
        d = name.len <= TREE_NAME_MAX ? tree_child(t, at, name) : 0;
        if (!d && !create)
            return 0;
        if (name.len > TREE_NAME_MAX)
            return error_set(err, ERR_LIMIT, "a symbolic link holds a name longer than %d bytes",
                             TREE_NAME_MAX);
        if (!d && make_parent(t, at, name, &d, err) < 0)
            return -1;
        n = inode_of(t, d);
        if (S_ISLNK(n->mode)) {
            if (++links > TREE_SYMLINKS_MAX)
                return error_set(err, ERR_INVALID, "symbolic links in the path %.*s go in circles",
                                 (int)path.len, (const char *)path.ptr);
            if (n->link.len && t->names.base[n->link.offset] == '/')
                at = 0;
            if (expand(t, n, &left, &text, err) < 0)
                return -1;
            continue;
        }
        if (!S_ISDIR(n->mode)) {
            if (!create)
                return 0;
            return error_set(err, ERR_INVALID, "%.*s: a parent, %.*s, is not a directory",
                             (int)path.len, (const char *)path.ptr, (int)name.len,
                             (const char *)name.ptr);
        }
        if (create)
            dentry_at(t, d)->layer = t->layer;
        at = d;
    }
    *dir = at;
    return 0;
}

/* ---- adding ---- */

int tree_begin_layer(struct tree *t, struct error *err)
{
    if (t->layer >= TREE_LAYERS_MAX)
        return error_set(err, ERR_LIMIT, "the image has more than %d layers", TREE_LAYERS_MAX);
    t->layer++;
    return 0;
}

static void set_meta(const struct tree *t, struct inode *n, const struct tree_meta *meta)
{
    int64_t mtime = meta->mtime;

    if (mtime > t->limits.mtime_max)
        mtime = t->limits.mtime_max;
    if (mtime < 0)
        mtime = 0;
    n->mode = (uint16_t)meta->mode;
    n->uid = meta->uid;
    n->gid = meta->gid;
    n->mtime = mtime > UINT32_MAX ? UINT32_MAX : (uint32_t)mtime;
    n->xattrs = 0;
    n->flags &= (uint16_t)~INODE_CAPABILITY;
}

/* Forgets the entries of a directory, all the way down. The directory itself stays. */
static void drop_below(struct tree *t, uint32_t inode)
{
    AUTO_IDS struct ids todo = {0};
    struct inode *n = inode_at(t, inode);

    if (!S_ISDIR(n->mode) || !n->dir.root)
        return;
    ids_push(&todo, n->dir.root);
    n->dir.root = 0;
    while (todo.len) {
        struct dentry *e = dentry_at(t, todo.ptr[--todo.len]);
        struct inode *x = inode_at(t, e->inode);

        tree_tick(t);
        if (e->left)
            ids_push(&todo, e->left);
        if (e->right)
            ids_push(&todo, e->right);
        if (S_ISDIR(x->mode) && x->dir.root)
            ids_push(&todo, x->dir.root);
        x->nlink--;
        e->flags |= DENTRY_DEAD;
    }
}

/* Makes the name `last` in `dir` refer to `inode`, in place of whatever is there. */
static int place(struct tree *t, uint32_t dir, struct slice last, uint32_t inode, uint32_t *out,
                 struct error *err)
{
    uint32_t d = tree_child(t, dir, last);

    if (d) {
        uint32_t old = dentry_at(t, d)->inode;

        drop_below(t, old);
        inode_at(t, old)->nlink--;
    } else if (new_entry(t, dir, last, &d, err) < 0) {
        return -1;
    } else {
        tree_attach(t, dir, d);
    }
    dentry_at(t, d)->inode = inode;
    dentry_at(t, d)->layer = t->layer;
    inode_at(t, inode)->nlink++;
    *out = d;
    return 0;
}

static int set_target(struct tree *t, uint32_t i, struct slice target, struct error *err)
{
    size_t at;

    if (target.len == 0 || target.len > TREE_PATH_MAX || memchr(target.ptr, '\0', target.len))
        return error_set(err, ERR_INVALID,
                         "a symbolic link needs a target of 1 to %d bytes without a zero byte",
                         TREE_PATH_MAX);
    if (arena_take(&t->names, target.len, 1, &at, err) < 0)
        return -1;
    memcpy(t->names.base + at, target.ptr, target.len);
    inode_at(t, i)->link.offset = (uint32_t)at;
    inode_at(t, i)->link.len = (uint32_t)target.len;
    return 0;
}

static int add_new(struct tree *t, uint32_t dir, struct slice last, const struct tree_meta *meta,
                   uint32_t *inode, struct error *err)
{
    uint32_t i, d;

    if (take_inode(t, &i, err) < 0)
        return -1;
    set_meta(t, inode_at(t, i), meta);
    if (S_ISLNK(meta->mode) && set_target(t, i, meta->target, err) < 0)
        return -1;
    if (S_ISCHR(meta->mode) || S_ISBLK(meta->mode)) {
        inode_at(t, i)->dev.major = meta->rdev_major;
        inode_at(t, i)->dev.minor = meta->rdev_minor;
    }
    if (place(t, dir, last, i, &d, err) < 0)
        return -1;
    if (S_ISDIR(meta->mode))
        inode_at(t, i)->dir.path_len = child_path_len(t, dir, d);
    *inode = i;
    return 0;
}

static bool type_is_known(uint32_t mode)
{
    return S_ISDIR(mode) || S_ISREG(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) ||
           S_ISFIFO(mode);
}

int tree_add(struct tree *t, struct slice path, const struct tree_meta *meta, tree_node *node,
             struct error *err)
{
    char text[TREE_PATH_MAX + 1];
    struct slice clean, parent, last;
    uint32_t dir, d, i = 0;

    if (!type_is_known(meta->mode))
        return error_set(err, ERR_UNSUPPORTED, "%.*s: a file of a kind that images cannot hold",
                         (int)path.len, (const char *)path.ptr);
    if (tree_clean(path, text, &clean, err) < 0)
        return -1;
    tree_split_last(clean, &parent, &last);
    if (last.len == 0 && !S_ISDIR(meta->mode))
        return error_set(err, ERR_INVALID, "the root of the image is not a directory");
    if (tree_descend(t, parent, true, &dir, err) < 0)
        return -1;
    d = last.len ? tree_child(t, dir, last) : 0;
    if (S_ISDIR(meta->mode) && (last.len == 0 || (d && S_ISDIR(inode_of(t, d)->mode)))) {
        i = last.len ? dentry_at(t, d)->inode : 0;
        set_meta(t, inode_at(t, i), meta);
        dentry_at(t, d)->layer = t->layer;
    } else if (add_new(t, dir, last, meta, &i, err) < 0) {
        return -1;
    }
    if (node)
        *node = i;
    return 0;
}

int tree_link(struct tree *t, struct slice path, struct slice target, struct error *err)
{
    char text[TREE_PATH_MAX + 1];
    struct slice clean, parent, last;
    uint32_t dir, d = 0, inode;
    int rc;

    if (tree_clean(target, text, &clean, err) < 0)
        return -1;
    tree_split_last(clean, &parent, &last);
    if (tree_descend(t, parent, false, &dir, err) < 0)
        return -1;
    if (dir != UINT32_MAX && last.len)
        d = tree_child(t, dir, last);
    if (!d)
        return error_set(err, ERR_INVALID, "hard link %.*s: its target %.*s is not in the image",
                         (int)path.len, (const char *)path.ptr, (int)target.len,
                         (const char *)target.ptr);
    inode = dentry_at(t, d)->inode;
    if (S_ISDIR(inode_at(t, inode)->mode))
        return error_set(err, ERR_INVALID, "hard link %.*s: its target %.*s is a directory",
                         (int)path.len, (const char *)path.ptr, (int)target.len,
                         (const char *)target.ptr);
    if (tree_clean(path, text, &clean, err) < 0)
        return -1;
    tree_split_last(clean, &parent, &last);
    if (last.len == 0)
        return error_set(err, ERR_INVALID, "the root of the image is not a directory");
    /* The new name counts first: the old one may vanish with a directory that it replaces. */
    inode_at(t, inode)->nlink++;
    rc = tree_descend(t, parent, true, &dir, err);
    if (rc == 0)
        rc = place(t, dir, last, inode, &d, err);
    inode_at(t, inode)->nlink--;
    return rc;
}

int tree_make_dir(struct tree *t, struct slice path, uint32_t mode, int64_t mtime,
                  struct error *err)
{
    struct tree_meta meta = {.mode = S_IFDIR | mode, .mtime = mtime};
    char text[TREE_PATH_MAX + 1];
    uint32_t before = t->inode_count, dir;
    struct slice clean;

    if (tree_clean(path, text, &clean, err) < 0 || tree_descend(t, clean, true, &dir, err) < 0)
        return -1;
    if (dentry_at(t, dir)->inode >= before)
        set_meta(t, inode_of(t, dir), &meta);
    return 0;
}

int tree_reserve(struct tree *t, tree_node node, uint64_t size, struct error *err)
{
    struct inode *n = inode_at(t, node);

    if (!S_ISREG(n->mode))
        return error_set(err, ERR_INTERNAL, "only regular files have content");
    if (size > t->limits.content_max - t->content_total) {
        error_set(err, ERR_LIMIT, "the image's files hold more than %llu bytes",
                  (unsigned long long)t->limits.content_max);
        return error_hint(err, "set CAPSULE_IMAGE_MAX to a larger number of bytes if the image is "
                               "to be trusted");
    }
    n->file.size = size;
    n->file.offset = t->spool_end;
    t->spool_end += size;
    t->content_total += size;
    return 0;
}

int tree_store(struct tree *t, tree_node node, uint64_t offset, const void *ptr, size_t len,
               struct error *err)
{
    const struct inode *n = inode_at(t, node);
    uint64_t end;

    if (len == 0)
        return 0;
    if (!S_ISREG(n->mode) || (n->flags & INODE_OUTSIDE) || offset > n->file.size ||
        len > n->file.size - offset)
        return error_set(err, ERR_INVALID, "file content lies outside the file's size");
    end = n->file.offset + offset + len;
    if (fd_pwrite_all(t->spool, ptr, len, (off_t)(n->file.offset + offset), "the image's content",
                      err) < 0)
        return -1;
    if (end > t->spool_size)
        t->spool_size = end;
    return 0;
}

int tree_add_xattr(struct tree *t, tree_node node, struct slice name, struct slice value,
                   struct error *err)
{
    struct inode *n = inode_at(t, node);
    struct slice other_name, other_value;
    uint32_t cursor = 0;
    size_t total = 0, at;
    struct xattr_head head;

    while (tree_next_xattr(t, node, &cursor, &other_name, &other_value))
        total += other_name.len + other_value.len;
    if (name.len == 0 || name.len > TREE_NAME_MAX || value.len > TREE_XATTRS_MAX ||
        total + name.len + value.len > TREE_XATTRS_MAX)
        return error_set(err, ERR_LIMIT, "extended attributes of a file pass %d bytes",
                         TREE_XATTRS_MAX);
    if (arena_take(&t->names, sizeof(head) + name.len + value.len, 4, &at, err) < 0)
        return -1;
    head = (struct xattr_head){n->xattrs, (uint32_t)name.len, (uint32_t)value.len};
    memcpy(t->names.base + at, &head, sizeof(head));
    memcpy(t->names.base + at + sizeof(head), name.ptr, name.len);
    if (value.len)
        memcpy(t->names.base + at + sizeof(head) + name.len, value.ptr, value.len);
    n->xattrs = (uint32_t)at;
    if (slice_equal_str(name, "security.capability"))
        n->flags |= INODE_CAPABILITY;
    return 0;
}

bool tree_next_xattr(const struct tree *t, tree_node node, uint32_t *cursor, struct slice *name,
                     struct slice *value)
{
    struct xattr_head head;
    uint32_t at = *cursor ? *cursor : inode_at(t, node)->xattrs;

    /* UINT32_MAX: the last one has been given out. */
    if (at == 0 || at == UINT32_MAX)
        return false;
    memcpy(&head, t->names.base + at, sizeof(head));
    *name = slice_of(t->names.base + at + sizeof(head), head.name_len);
    *value = slice_of(name->ptr + head.name_len, head.value_len);
    *cursor = head.next ? head.next : UINT32_MAX;
    return true;
}

void tree_set_source(struct tree *t, int dirfd)
{
    fd_close(&t->source);
    t->source = dirfd;
}
