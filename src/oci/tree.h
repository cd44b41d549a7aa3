/*
 * The root file system of an image, in memory: names, metadata and where the bytes are.
 *
 * Nothing of an image is ever unpacked on the host while building. Layers are applied to this
 * index with the rules of the OCI image specification ("Filesystem Changesets"), as container
 * engines apply them; so no name, link or device node of a hostile layer can touch the host, owners
 * need no root, and equal layers give an equal tree on every machine. File contents lie one after
 * the other in one unlinked spool file, or stay where they are (the `dir:` transport).
 *
 * Paths are byte strings, relative to the root or absolute (which means the same); "." and empty
 * components are dropped and ".." is resolved on the text and ends at the root. Parents that are
 * symbolic links are followed inside the tree, as in a chroot.
 */
#ifndef CAPSULE_OCI_TREE_H
#define CAPSULE_OCI_TREE_H

#include "base/error.h"
#include "base/slice.h"

#include <sys/types.h>

#define TREE_PATH_MAX     4095  /* bytes of a path from the root, as PATH_MAX less its NUL */
#define TREE_NAME_MAX     255   /* bytes of one component, as NAME_MAX */
#define TREE_SYMLINKS_MAX 40    /* symbolic links followed in one path, as the kernel does */
#define TREE_XATTRS_MAX   65536 /* bytes of all names and values of one file, as XATTR_LIST_MAX */
#define TREE_LAYERS_MAX   1024
/* Defaults of the limits that can be set. */
#define TREE_ENTRIES_MAX 4000000u
#define TREE_CONTENT_MAX ((uint64_t)64 << 30)

struct tree;

struct tree_limits {
    uint32_t entries_max; /* entries over all layers, overwritten ones included */
    uint64_t content_max; /* bytes of file contents over all layers */
    int64_t mtime_max;    /* later times are lowered to this (SOURCE_DATE_EPOCH) */
};
#define TREE_LIMITS_DEFAULT                                                                        \
    ((struct tree_limits){.entries_max = TREE_ENTRIES_MAX,                                         \
                          .content_max = TREE_CONTENT_MAX,                                         \
                          .mtime_max = UINT32_MAX})

/* What an entry is, apart from its name and content. */
struct tree_meta {
    uint32_t mode; /* type and permission bits as in st_mode */
    uint32_t uid;
    uint32_t gid;
    int64_t mtime;       /* seconds; clamped to 0..2^32-1 and to the limit when stored */
    struct slice target; /* of a symbolic link */
    uint32_t rdev_major; /* of a device node */
    uint32_t rdev_minor;
};

/* Handle of what an entry refers to; valid as long as the tree. */
typedef uint32_t tree_node;

/* An empty root, 0755 0:0. NULL with err when there is no room for its temporary files. */
struct tree *tree_new(const struct tree_limits *limits, struct error *err);
void tree_free(struct tree *t);
static inline void cleanup_tree(struct tree **t)
{
    tree_free(*t);
}
#define AUTO_TREE CLEANUP(cleanup_tree)

/* ---- building ---- */

/* From here on entries belong to a new layer: whiteouts hide only what earlier layers put there. */
int tree_begin_layer(struct tree *t, struct error *err);
/*
 * Adds an entry: directory, regular file (empty so far), symbolic link, device or FIFO; sockets are
 * refused. A directory over a directory replaces its metadata and keeps its children; anything
 * else replaces what was there with all below it. Missing parents are made, 0755 0:0. `node` may be
 * NULL.
 */
int tree_add(struct tree *t, struct slice path, const struct tree_meta *meta, tree_node *node,
             struct error *err);
/*
 * Adds a hard link to an entry of this tree, of this or an earlier layer; the last component of
 * `target` is not followed and must not be a directory.
 */
int tree_link(struct tree *t, struct slice path, struct slice target, struct error *err);
/*
 * Makes sure that `path` leads to a directory, through symbolic links: one that is missing is made,
 * 0:0 with the given mode and time, and so are its parents (0755); one that is there stays as it
 * is.
 */
int tree_make_dir(struct tree *t, struct slice path, uint32_t mode, int64_t mtime,
                  struct error *err);
/* Sets the size of a regular file just added; its content reads as zeros until it is stored. */
int tree_reserve(struct tree *t, tree_node node, uint64_t size, struct error *err);
/* Stores bytes of a file's content; what lies outside its size is ERR_INVALID. */
int tree_store(struct tree *t, tree_node node, uint64_t offset, const void *ptr, size_t len,
               struct error *err);
/* Adds an extended attribute. A second one of the same name is kept beside the first. */
int tree_add_xattr(struct tree *t, tree_node node, struct slice name, struct slice value,
                   struct error *err);
/*
 * Removes `path` as earlier layers left it: what the present layer put there or below stays. A path
 * that is not there is fine.
 */
int tree_whiteout(struct tree *t, struct slice path, struct error *err);
/* The same for everything in the directory `path`, which itself stays. */
int tree_make_opaque(struct tree *t, struct slice path, struct error *err);

/*
 * For a tree that mirrors a directory of the host: the content of files stays there and is read
 * through `dirfd` (which the tree takes over) when asked for.
 */
void tree_set_source(struct tree *t, int dirfd);
struct stat;
/* Marks a file as being the one of the same path below the source, in the state that `st` tells. */
int tree_refer(struct tree *t, tree_node node, const struct stat *st, struct error *err);

/* ---- reading ---- */

struct tree_entry {
    struct slice path; /* without a leading '/'; valid until the next call on the walk or tree */
    tree_node node;
    tree_node dir; /* the directory that it lies in; only from a walk */
    uint32_t mode, uid, gid, mtime;
    uint32_t nlink;      /* names of this file; 1 for directories */
    uint64_t size;       /* of a regular file */
    struct slice target; /* of a symbolic link */
    uint32_t rdev_major, rdev_minor;
    /*
     * Numbers 1, 2, 3 ... in order of first appearance in this walk; names of one file share one.
     * 0 from tree_lookup().
     */
    uint32_t ino;
    bool first;      /* the first name of its file in this walk */
    bool capability; /* carries file capabilities (security.capability), see tree_capabilities() */
    bool has_xattrs;
};

/*
 * Finds an entry; parents that are links are followed, the last component only with `follow`.
 * Returns false when there is none. `*out` has no path.
 */
bool tree_lookup(struct tree *t, struct slice path, bool follow, struct tree_entry *out);
/* The root directory's own metadata. */
void tree_root(const struct tree *t, struct tree_entry *out);
/* Walks over extended attributes; start with *cursor = 0; false at the end. */
bool tree_next_xattr(const struct tree *t, tree_node node, uint32_t *cursor, struct slice *name,
                     struct slice *value);

/*
 * Every entry but the root, in the order of the bytes of the full path ("a", "a.b", "a/b"): parents
 * come before their children. The tree must not change during a walk; one walk at a time.
 */
struct tree_walk;
struct tree_walk *tree_walk_new(struct tree *t) MUST_USE;
/* False at the end. */
bool tree_walk_next(struct tree_walk *w, struct tree_entry *out);
void tree_walk_free(struct tree_walk *w);
static inline void cleanup_tree_walk(struct tree_walk **w)
{
    tree_walk_free(*w);
}
#define AUTO_TREE_WALK CLEANUP(cleanup_tree_walk)

/*
 * The entries of one directory, in the order of the bytes of their names, which `path` is. The tree
 * must not change meanwhile; any number at a time. `ino` and `first` are not set.
 */
struct tree_list;
struct tree_list *tree_list_new(struct tree *t, tree_node dir) MUST_USE;
/* False at the end. */
bool tree_list_next(struct tree_list *l, struct tree_entry *out);
void tree_list_free(struct tree_list *l);
static inline void cleanup_tree_list(struct tree_list **l)
{
    tree_list_free(*l);
}
#define AUTO_TREE_LIST CLEANUP(cleanup_tree_list)

/* Handles of nodes are below this number. */
uint32_t tree_nodes(const struct tree *t);

/* Reads the content of a regular file from its start. */
struct tree_content {
    int fd;
    bool own;
    uint64_t offset, left;
    struct stat *expect; /* of a file outside, to see that it did not change meanwhile */
    char *name;
};
#define TREE_CONTENT_NONE ((struct tree_content){.fd = -1})
int tree_content_open(struct tree *t, tree_node node, struct tree_content *c, struct error *err);
/*
 * Up to `len` next bytes; 0 at the end, -1 with err. Over all calls exactly the entry's size comes,
 * or an error: a file that changed since it was listed is ERR_INVALID.
 */
ssize_t tree_content_read(struct tree_content *c, void *ptr, size_t len, struct error *err);
void tree_content_close(struct tree_content *c);
#define AUTO_TREE_CONTENT CLEANUP(tree_content_close)

/* What becomes of file capabilities (security.capability), which newc cannot carry. */
enum tree_capabilities {
    TREE_CAPABILITIES_KEEP,
    TREE_CAPABILITIES_REFUSE, /* the first file with some is an error that names the way out */
    TREE_CAPABILITIES_DROP,   /* they are forgotten; one warning says how many */
};
/* Other extended attributes are left out by every format, with a line in the log. */
int tree_capabilities(struct tree *t, enum tree_capabilities what, struct error *err);

/* Live entries without the root, and bytes of content that they refer to. */
struct tree_stats {
    uint64_t entries, files, content;
};
void tree_stats(struct tree *t, struct tree_stats *out);

/*
 * For tests: every live entry reachable exactly once, directories in order, link counts right.
 * ERR_INTERNAL tells what is not.
 */
int tree_check(struct tree *t, struct error *err);

#endif
