#include "oci/erofs.h"

#include "base/file.h"
#include "eif/erofs_format.h"

#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <lz4hc.h>
#include <sys/stat.h>

/* Of 1 to 12. See "Root format" in docs/performance.md. */
#define LEVEL 4

#define META_AT EROFS_BLOCK

/* What is passed along. Two passes: the first finds a place for every inode, the second writes. */
struct image {
    struct tree *tree;
    int fd;
    const char *name;
    uint64_t max;
    const struct erofs_options *options;
    uint32_t *nids; /* of every node; 0: none yet */
    uint64_t inodes;
    uint64_t meta; /* end of the inodes */
    uint64_t data; /* end of the data blocks */
    uint64_t done;
    uint8_t *piece, *packed; /* EROFS_PIECE each */
    void *state;             /* of the compressor */
};

/* A directory as it lies on disk: whole blocks, and an end that may follow the inode. */
struct listing {
    struct image *image;
    uint64_t blocks; /* whole ones so far */
    uint64_t bytes;  /* of all names and their entries, as the directory's size counts them */
    uint32_t subdirs;
    bool write;
    size_t count, names_len;
    uint8_t entries[EROFS_BLOCK], names[EROFS_BLOCK];
    uint8_t block[EROFS_BLOCK]; /* the last one, when all names are in */
};

static int too_big(const struct image *im, struct error *err)
{
    return error_set(err, ERR_LIMIT, "%s: the file system image is larger than %" PRIu64 " bytes",
                     im->name, im->max);
}

/* Appends data blocks, the last one filled up with zeros. */
static int put_blocks(struct image *im, const void *ptr, size_t len, struct error *err)
{
    static const uint8_t zeros[EROFS_BLOCK];
    size_t pad = (EROFS_BLOCK - len % EROFS_BLOCK) % EROFS_BLOCK;

    if (im->data + len + pad > im->max)
        return too_big(im, err);
    if (fd_pwrite_all(im->fd, ptr, len, (off_t)im->data, im->name, err) < 0 ||
        fd_pwrite_all(im->fd, zeros, pad, (off_t)(im->data + len), im->name, err) < 0)
        return -1;
    im->data += len + pad;
    return 0;
}

static uint32_t next_block(const struct image *im)
{
    return (uint32_t)(im->data / EROFS_BLOCK);
}

/* ---- extended attributes ---- */

static bool find_capability(const struct image *im, const struct tree_entry *e, struct slice *value)
{
    struct slice name;
    uint32_t cursor = 0;

    while (e->capability && tree_next_xattr(im->tree, e->node, &cursor, &name, value))
        if (slice_equal_str(name, "security." EROFS_CAPABILITY))
            return value->len <= EROFS_CAPABILITY_MAX;
    return false;
}

static size_t capability_len(size_t value_len)
{
    return EROFS_XATTR_ENTRY + (sizeof(EROFS_CAPABILITY) - 1 + value_len + 3) / 4 * 4;
}

/* Bytes of inode and attributes. */
static size_t head_len(const struct image *im, const struct tree_entry *e)
{
    struct slice value;

    if (!find_capability(im, e, &value))
        return EROFS_INODE_LEN;
    return EROFS_INODE_LEN + EROFS_XATTR_HEAD + capability_len(value.len);
}

static void put_capability(const struct image *im, const struct tree_entry *e, uint8_t *inode)
{
    uint8_t *p = inode + EROFS_INODE_LEN + EROFS_XATTR_HEAD;
    struct slice value;

    if (!find_capability(im, e, &value))
        return;
    put_le16(inode + EROFS_I_XATTRS, (uint16_t)(1 + capability_len(value.len) / 4));
    p[0] = sizeof(EROFS_CAPABILITY) - 1;
    p[1] = EROFS_XATTR_SECURITY;
    put_le16(p + 2, (uint16_t)value.len);
    memcpy(p + EROFS_XATTR_ENTRY, EROFS_CAPABILITY, p[0]);
    memcpy(p + EROFS_XATTR_ENTRY + p[0], value.ptr, value.len);
}

/* ---- directories ---- */

static uint8_t type_of(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return 1;
    case S_IFDIR:
        return 2;
    case S_IFCHR:
        return 3;
    case S_IFBLK:
        return 4;
    case S_IFIFO:
        return 5;
    default:
        return 7; /* a symbolic link */
    }
}

/* The entries, then the names, whose offsets are known only now. Returns the bytes in use. */
static size_t close_block(struct listing *l)
{
    size_t names_at = l->count * EROFS_DIRENT, used = names_at + l->names_len;

    for (size_t i = 0; i < l->count; i++) {
        uint8_t *at = l->entries + i * EROFS_DIRENT + EROFS_D_NAME;

        put_le16(at, (uint16_t)(get_le16(at) + names_at));
    }
    memset(l->block, 0, sizeof(l->block));
    memcpy(l->block, l->entries, names_at);
    memcpy(l->block + names_at, l->names, l->names_len);
    l->count = l->names_len = 0;
    return used;
}

static int add_name(struct listing *l, struct slice name, tree_node node, uint32_t mode,
                    struct error *err)
{
    uint8_t *entry;

    if ((l->count + 1) * EROFS_DIRENT + l->names_len + name.len > EROFS_BLOCK) {
        close_block(l);
        l->blocks++;
        if (l->write && put_blocks(l->image, l->block, EROFS_BLOCK, err) < 0)
            return -1;
    }
    entry = l->entries + l->count++ * EROFS_DIRENT;
    put_le64(entry, l->image->nids[node]);
    put_le16(entry + EROFS_D_NAME, (uint16_t)l->names_len);
    entry[EROFS_D_TYPE] = type_of(mode);
    entry[EROFS_D_TYPE + 1] = 0;
    memcpy(l->names + l->names_len, name.ptr, name.len);
    l->names_len += name.len;
    return 0;
}

/*
 * All names of a directory in order, among them "." and "..". Returns the bytes of the last block,
 * which is in l->block, or -1.
 */
static int list_directory(struct listing *l, const struct tree_entry *dir, struct error *err)
{
    const struct {
        struct slice name;
        tree_node node;
    } own[] = {{slice_str("."), dir->node}, {slice_str(".."), dir->dir}};
    AUTO_TREE_LIST struct tree_list *list = tree_list_new(l->image->tree, dir->node);
    struct tree_entry e;
    size_t dots = 0;
    bool more;

    do {
        more = tree_list_next(list, &e);
        for (; dots < 2 && (!more || slice_compare(own[dots].name, e.path) < 0); dots++)
            if (add_name(l, own[dots].name, own[dots].node, S_IFDIR, err) < 0)
                return -1;
        if (more && add_name(l, e.path, e.node, e.mode, err) < 0)
            return -1;
        l->subdirs += more && S_ISDIR(e.mode);
    } while (more);
    l->bytes = l->blocks * EROFS_BLOCK;
    return (int)close_block(l);
}

/* ---- places ---- */

/* What of a regular file, link or directory follows its inode; the rest lies in data blocks. */
static uint64_t inline_len(size_t head, uint64_t size)
{
    uint64_t end = size % EROFS_BLOCK;

    return end <= erofs_inline_max(head) ? end : 0;
}

/* A file that does not fit behind its inode has an index, whether it shrinks or not. */
static bool has_index(size_t head, const struct tree_entry *e)
{
    return S_ISREG(e->mode) && e->size > erofs_inline_max(head);
}

static int bytes_of(struct image *im, const struct tree_entry *e, uint64_t *size, struct error *err)
{
    AUTO_FREE struct listing *l = NULL;
    int last;

    *size = S_ISREG(e->mode) ? e->size : e->target.len;
    if (!S_ISDIR(e->mode))
        return 0;
    l = xcalloc(1, sizeof(*l));
    l->image = im;
    last = list_directory(l, e, err);
    *size = l->bytes + (uint64_t)last;
    return last < 0 ? -1 : 0;
}

static int place(struct image *im, const struct tree_entry *e, struct error *err)
{
    size_t head = head_len(im, e);
    uint64_t size, len, at = (im->meta + EROFS_SLOT - 1) / EROFS_SLOT * EROFS_SLOT;

    if (bytes_of(im, e, &size, err) < 0)
        return -1;
    if (has_index(head, e)) {
        len = erofs_index_at(head) + (size + EROFS_BLOCK - 1) / EROFS_BLOCK * EROFS_Z_ENTRY;
    } else {
        len = head + inline_len(head, size);
        if (at % EROFS_BLOCK + len > EROFS_BLOCK)
            at = (at / EROFS_BLOCK + 1) * EROFS_BLOCK;
    }
    im->meta = at + len;
    if (im->meta > im->max)
        return too_big(im, err);
    im->nids[e->node] = (uint32_t)(at / EROFS_SLOT);
    im->inodes++;
    return 0;
}

/* ---- inodes ---- */

static int put_inode(struct image *im, const struct tree_entry *e, enum erofs_layout layout,
                     uint64_t size, uint32_t first, uint32_t nlink, struct slice end,
                     struct error *err)
{
    uint8_t bytes[EROFS_BLOCK] = {0};
    size_t head = head_len(im, e);

    put_le16(bytes + EROFS_I_FORMAT, (uint16_t)(1 | layout << 1));
    put_le16(bytes + EROFS_I_MODE, (uint16_t)(e->mode & (S_IFMT | 07777)));
    put_le64(bytes + EROFS_I_SIZE, size);
    put_le32(bytes + EROFS_I_UNION, first);
    put_le32(bytes + EROFS_I_INO, e->ino + 1); /* the root is 1 */
    put_le32(bytes + EROFS_I_UID, e->uid);
    put_le32(bytes + EROFS_I_GID, e->gid);
    put_le64(bytes + EROFS_I_MTIME, e->mtime);
    put_le32(bytes + EROFS_I_NLINK, nlink);
    put_capability(im, e, bytes);
    if (end.len)
        memcpy(bytes + head, end.ptr, end.len);
    return fd_pwrite_all(im->fd, bytes, head + end.len,
                         (off_t)im->nids[e->node] * (off_t)EROFS_SLOT, im->name, err);
}

/* What fits in one block: behind the inode, or else in a block of its own. */
static int put_small(struct image *im, const struct tree_entry *e, uint64_t size, uint32_t first,
                     uint32_t nlink, struct slice last, struct error *err)
{
    if (last.len == inline_len(head_len(im, e), size) && last.len > 0)
        return put_inode(im, e, EROFS_INLINE, size, first, nlink, last, err);
    if (put_blocks(im, last.ptr, last.len, err) < 0)
        return -1;
    return put_inode(im, e, EROFS_FLAT, size, first, nlink, slice_of(NULL, 0), err);
}

static int put_directory(struct image *im, const struct tree_entry *e, struct error *err)
{
    AUTO_FREE struct listing *l = xcalloc(1, sizeof(*l));
    uint32_t first = next_block(im);
    int last;

    l->image = im;
    l->write = true;
    last = list_directory(l, e, err);
    if (last < 0)
        return -1;
    return put_small(im, e, l->bytes + (uint64_t)last, first, 2 + l->subdirs,
                     slice_of(l->block, (size_t)last), err);
}

static int put_special(struct image *im, const struct tree_entry *e, struct error *err)
{
    /* As the kernel's new_encode_dev(). */
    uint32_t device = (e->rdev_minor & 0xff) | e->rdev_major << 8 | (e->rdev_minor & ~0xffu) << 12;

    return put_inode(im, e, EROFS_FLAT, 0, S_ISFIFO(e->mode) ? 0 : device, e->nlink,
                     slice_of(NULL, 0), err);
}

/* ---- regular files ---- */

/* The next piece of a file, filled up to EROFS_PIECE unless the file ends. */
static ssize_t read_piece(struct image *im, struct tree_content *c, struct error *err)
{
    size_t len = 0;
    ssize_t n;

    while (len < EROFS_PIECE &&
           (n = tree_content_read(c, im->piece + len, EROFS_PIECE - len, err)) != 0) {
        if (n < 0)
            return -1;
        len += (size_t)n;
    }
    im->done += len;
    if (im->options->progress)
        im->options->progress(im->options->progress_arg, im->done);
    return (ssize_t)len;
}

/*
 * Compresses im->piece, right-aligned into the end of im->packed. Returns how many blocks that is,
 * or 0 when none is saved. What fast compression cannot shrink the slow one is not tried on.
 */
static size_t pack_piece(struct image *im, size_t len)
{
    size_t blocks = (len + EROFS_BLOCK - 1) / EROFS_BLOCK;
    int room = (int)((blocks - 1) * EROFS_BLOCK), n;
    size_t packed;
    const char *from = (const char *)im->piece;
    char *to = (char *)im->packed;

    if (blocks < 2 || LZ4_compress_default(from, to, (int)len, room) <= 0)
        return 0;
    n = LZ4_compress_HC_extStateHC(im->state, from, to, (int)len, room, LEVEL);
    if (n <= 0)
        return 0;
    packed = (size_t)n;
    blocks = (packed + EROFS_BLOCK - 1) / EROFS_BLOCK;
    memmove(im->packed + EROFS_PIECE - packed, im->packed, packed);
    memset(im->packed + EROFS_PIECE - blocks * EROFS_BLOCK, 0, blocks * EROFS_BLOCK - packed);
    return blocks;
}

/* The index entries of a piece of `len` bytes that takes `packed` blocks, or lies as it is (0). */
static size_t index_piece(uint8_t *out, size_t len, uint32_t block, size_t packed)
{
    size_t whole = len / EROFS_BLOCK, count = (len + EROFS_BLOCK - 1) / EROFS_BLOCK;

    memset(out, 0, count * EROFS_Z_ENTRY);
    for (size_t i = 0; i < count; i++) {
        uint8_t *e = out + i * EROFS_Z_ENTRY;

        if (!packed) {
            put_le32(e + EROFS_Z_BLOCK, block + (uint32_t)i); /* EROFS_PLAIN */
        } else if (i == whole) {
            put_le16(e + EROFS_Z_OFFSET, (uint16_t)(len % EROFS_BLOCK));
        } else if (i == 0) {
            put_le16(e, EROFS_HEAD);
            put_le32(e + EROFS_Z_BLOCK, block);
        } else {
            put_le16(e, EROFS_NEXT);
            put_le16(e + EROFS_Z_BACK, (uint16_t)(i == 1 ? packed | EROFS_Z_COUNT : i));
            put_le16(e + EROFS_Z_FORTH, (uint16_t)(whole - i));
        }
    }
    return count * EROFS_Z_ENTRY;
}

/* *shrunk: whether any piece did. Otherwise the file lies in its blocks as it is. */
static int put_pieces(struct image *im, struct tree_content *c, uint64_t index_at, bool *shrunk,
                      struct error *err)
{
    uint8_t index[EROFS_PIECE_MAX * EROFS_Z_ENTRY];
    ssize_t n;

    while ((n = read_piece(im, c, err)) > 0) {
        size_t packed = pack_piece(im, (size_t)n);
        size_t index_len = index_piece(index, (size_t)n, next_block(im), packed);
        size_t len = packed ? packed * EROFS_BLOCK : (size_t)n;

        *shrunk |= packed > 0;
        if (put_blocks(im, packed ? im->packed + EROFS_PIECE - len : im->piece, len, err) < 0 ||
            fd_pwrite_all(im->fd, index, index_len, (off_t)index_at, im->name, err) < 0)
            return -1;
        index_at += index_len;
    }
    return n < 0 ? -1 : 0;
}

static int put_file(struct image *im, const struct tree_entry *e, struct error *err)
{
    AUTO_TREE_CONTENT struct tree_content content = TREE_CONTENT_NONE;
    uint8_t header[EROFS_Z_HEADER] = {0};
    size_t head = head_len(im, e);
    uint64_t at = (uint64_t)im->nids[e->node] * EROFS_SLOT, index_at = at + erofs_index_at(head);
    uint32_t first = next_block(im);
    bool shrunk = false;
    ssize_t n;

    if (tree_content_open(im->tree, e->node, &content, err) < 0)
        return -1;
    if (!has_index(head, e)) {
        n = read_piece(im, &content, err);
        return n < 0 ? -1
                     : put_small(im, e, e->size, first, e->nlink, slice_of(im->piece, (size_t)n),
                                 err);
    }
    put_le16(header + EROFS_Z_ADVISE, EROFS_Z_BIG_PIECES);
    if (put_pieces(im, &content, index_at, &shrunk, err) < 0 ||
        fd_pwrite_all(im->fd, header, sizeof(header), (off_t)(index_at - EROFS_Z_HEADER), im->name,
                      err) < 0)
        return -1;
    return put_inode(im, e, shrunk ? EROFS_COMPRESSED : EROFS_FLAT, e->size,
                     shrunk ? next_block(im) - first : first, e->nlink, slice_of(NULL, 0), err);
}

static int put_entry(struct image *im, const struct tree_entry *e, struct error *err)
{
    switch (e->mode & S_IFMT) {
    case S_IFDIR:
        return put_directory(im, e, err);
    case S_IFREG:
        return put_file(im, e, err);
    case S_IFLNK:
        return put_small(im, e, e->target.len, next_block(im), e->nlink, e->target, err);
    default:
        return put_special(im, e, err);
    }
}

/* ---- the whole ---- */

static int for_each(struct image *im,
                    int (*call)(struct image *, const struct tree_entry *, struct error *),
                    struct error *err)
{
    AUTO_TREE_WALK struct tree_walk *walk = tree_walk_new(im->tree);
    struct tree_entry e;

    tree_root(im->tree, &e);
    if (call(im, &e, err) < 0)
        return -1;
    while (tree_walk_next(walk, &e))
        if (e.first && call(im, &e, err) < 0)
            return error_wrap(err, "/%.*s", (int)e.path.len, (const char *)e.path.ptr);
    return 0;
}

static int put_super(struct image *im, struct error *err)
{
    uint8_t block[EROFS_BLOCK] = {0}, *sb = block + EROFS_SUPER_AT;

    put_le32(sb + EROFS_SB_MAGIC, EROFS_MAGIC);
    put_le32(sb + EROFS_SB_COMPAT, EROFS_COMPAT_MTIME);
    sb[EROFS_SB_BLOCK_BITS] = 12;
    put_le16(sb + EROFS_SB_ROOT_NID, META_AT / EROFS_SLOT);
    put_le64(sb + EROFS_SB_INODES, im->inodes);
    put_le32(sb + EROFS_SB_BLOCKS, next_block(im));
    put_le32(sb + EROFS_SB_INCOMPAT, EROFS_INCOMPAT);
    put_le16(sb + EROFS_SB_ALGORITHMS, EROFS_LZ4_BIT);
    put_le16(sb + EROFS_SB_LEN, EROFS_LZ4_CFG_LEN);
    put_le16(sb + EROFS_SB_LEN + 2, UINT16_MAX);
    put_le16(sb + EROFS_SB_LEN + 4, EROFS_PIECE_MAX);
    return fd_pwrite_all(im->fd, block, sizeof(block), 0, im->name, err);
}

int erofs_write(struct tree *t, int fd, const char *name, uint64_t max,
                const struct erofs_options *options, uint64_t *size, struct error *err)
{
    AUTO_FREE uint32_t *nids = xcalloc(tree_nodes(t), sizeof(*nids));
    AUTO_FREE uint8_t *piece = xmalloc(EROFS_PIECE), *packed = xmalloc(EROFS_PIECE);
    AUTO_FREE void *state = xmalloc((size_t)LZ4_sizeofStateHC());
    struct image im = {.tree = t,
                       .fd = fd,
                       .name = name,
                       .max = max,
                       .options = options,
                       .nids = nids,
                       .meta = META_AT,
                       .piece = piece,
                       .packed = packed,
                       .state = state};

    if (for_each(&im, place, err) < 0)
        return -1;
    im.data = (im.meta + EROFS_BLOCK - 1) / EROFS_BLOCK * EROFS_BLOCK;
    if (for_each(&im, put_entry, err) < 0 || put_super(&im, err) < 0)
        return -1;
    /* An image may end with inodes, the last of them with an index that was never written. */
    if (ftruncate(fd, (off_t)im.data) < 0)
        return error_sys(err, errno, "writing %s", name);
    *size = im.data;
    return 0;
}
