/* The two tables behind `struct tree`; private to tree.c, tree_walk.c and tree_apply.c. */
#ifndef CAPSULE_OCI_TREE_PRIV_H
#define CAPSULE_OCI_TREE_PRIV_H

#include "oci/arena.h"
#include "oci/tree.h"

enum {
    DENTRY_DEAD = 1, /* removed; numbers are not used again */

    INODE_CAPABILITY = 1,
    INODE_OUTSIDE = 2, /* content is a file of the source directory */
};

/* A name in a directory. Number 0 is the root, and elsewhere stands for "none". */
struct dentry {
    uint32_t name; /* offset in `names` */
    uint32_t parent;
    uint32_t left, right; /* the directory's entries form a treap in the order of names */
    uint32_t inode;
    uint16_t layer; /* the last layer that named it, or something below it */
    uint8_t name_len;
    uint8_t flags;
};

struct inode {
    uint16_t mode;
    uint16_t flags;
    uint32_t uid, gid, mtime;
    uint32_t nlink;
    uint32_t xattrs; /* offset in `names` of the first struct xattr_head; 0: none */
    uint32_t ino;    /* number in the present walk, of files with several names */
    union {
        struct {
            uint64_t size;
            uint64_t offset; /* in the spool, or of a struct outside in `names` */
        } file;
        struct {
            uint32_t root;     /* of the treap */
            uint32_t pruned;   /* layer in which lower entries were last cleared away */
            uint32_t path_len; /* bytes of its path from the root */
        } dir;
        struct {
            uint32_t offset, len; /* in `names` */
        } link;
        struct {
            uint32_t major, minor;
        } dev;
    };
};

/* Followed by name and value. */
struct xattr_head {
    uint32_t next;
    uint32_t name_len, value_len;
};

/* A file of the source directory and what it looked like when it was listed. */
struct outside {
    uint32_t dentry; /* its path */
    uint64_t dev, ino;
    int64_t mtime_ns, ctime_ns;
};

struct tree {
    struct arena dentries, inodes, names;
    uint32_t dentry_count, inode_count;
    struct tree_limits limits;
    uint64_t seed; /* treap priorities: an image's author must not know them */
    uint64_t content_total;
    uint64_t spool_end;  /* where the next content goes */
    uint64_t spool_size; /* size that the file has at least */
    uint32_t ticks;
    uint16_t layer;
    int spool;
    int source;
};

static inline struct dentry *dentry_at(const struct tree *t, uint32_t d)
{
    return (struct dentry *)(void *)t->dentries.base + d;
}
static inline struct inode *inode_at(const struct tree *t, uint32_t i)
{
    return (struct inode *)(void *)t->inodes.base + i;
}
static inline struct inode *inode_of(const struct tree *t, uint32_t d)
{
    return inode_at(t, dentry_at(t, d)->inode);
}
static inline struct slice dentry_name(const struct tree *t, uint32_t d)
{
    const struct dentry *e = dentry_at(t, d);

    return slice_of(t->names.base + e->name, e->name_len);
}

/* A growing list of numbers. */
struct ids {
    uint32_t *ptr;
    size_t len, cap;
};
void ids_push(struct ids *v, uint32_t id);
static inline void ids_free(struct ids *v)
{
    free(v->ptr);
}
#define AUTO_IDS CLEANUP(ids_free)

/* Now and then gives resident memory back; called on each step that touches the tables. */
void tree_tick(struct tree *t);
/* The entry of a directory, or 0. */
uint32_t tree_child(struct tree *t, uint32_t dir, struct slice name);
/* Links a dentry into its directory's treap, or takes it out. */
void tree_attach(struct tree *t, uint32_t dir, uint32_t d);
void tree_detach(struct tree *t, uint32_t dir, uint32_t d);
/* Path of a dentry from the root, dead or not, into `out` (TREE_PATH_MAX + 1 bytes). */
struct slice tree_path(const struct tree *t, uint32_t d, char *out);
/*
 * Brings a path into the form "a/b/c" (empty: the root) in `out`, which has room for TREE_PATH_MAX
 * bytes; checks the limits.
 */
int tree_clean(struct slice path, char *out, struct slice *clean, struct error *err);
/* Splits a clean path at its last slash; `last` is empty for the root. */
void tree_split_last(struct slice path, struct slice *parent, struct slice *last);
/*
 * Goes to the directory `path` (clean), through symbolic links. With `create` missing ones are made
 * and all are marked as named in this layer; else *dir = UINT32_MAX when there is no such
 * directory.
 */
int tree_descend(struct tree *t, struct slice path, bool create, uint32_t *dir, struct error *err);
void tree_describe(const struct tree *t, uint32_t inode, struct tree_entry *out);

#endif
