#include "eif/erofs.h"

#include "eif/erofs_format.h"

#include <inttypes.h>
#include <lz4.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

/* A directory whose names are being given out. */
struct frame {
    uint64_t nid;
    uint64_t block; /* of its data */
    uint32_t next;  /* entry there */
    uint32_t path_len;
};

struct inode {
    uint64_t nid, size;
    uint64_t end; /* offset in the image behind inode and attributes */
    size_t head;  /* bytes of both */
    uint32_t first, nlink;
    uint16_t mode;
    enum erofs_layout layout;
    uint8_t bytes[EROFS_INODE_LEN];
};

struct erofs_reader {
    erofs_source *source;
    void *arg;
    uint64_t size;
    const char *prefix;
    uint32_t entries;
    uint64_t root;
    bool started;

    uint8_t *nids_seen, *blocks_seen;

    struct frame *frames;
    size_t depth, cap;
    char path[CPIO_NAME_MAX + 1];

    /* The entry given out: what of its content is still to come. */
    struct inode file;
    uint64_t at;
    uint8_t capability[EROFS_CAPABILITY_MAX];
    uint8_t *piece, *packed; /* EROFS_PIECE each */
};

__attribute__((format(printf, 3, 4))) static int bad(const struct erofs_reader *r,
                                                     struct error *err, const char *format, ...)
{
    char why[128];
    va_list ap;

    va_start(ap, format);
    vsnprintf(why, sizeof(why), format, ap);
    va_end(ap);
    error_set(err, ERR_INVALID, "malformed file system image at %.200s: %s",
              r->path[0] ? r->path : "its start", why);
    return -1;
}

static int read_at(struct erofs_reader *r, void *ptr, size_t len, uint64_t offset,
                   struct error *err)
{
    if (offset > r->size || len > r->size - offset)
        return bad(r, err, "something lies beyond its end");
    return r->source(r->arg, ptr, len, offset, err);
}

/* Marks; false when it was marked already. */
static bool mark(uint8_t *bits, uint64_t index)
{
    uint8_t bit = (uint8_t)(1 << index % 8);
    bool fresh = !(bits[index / 8] & bit);

    bits[index / 8] |= bit;
    return fresh;
}

static int take_blocks(struct erofs_reader *r, uint64_t first, uint64_t count, struct error *err)
{
    if (first >= r->size / EROFS_BLOCK || count > r->size / EROFS_BLOCK - first)
        return bad(r, err, "its data lies beyond the image's end");
    for (uint64_t i = 0; i < count; i++)
        if (!mark(r->blocks_seen, first + i))
            return bad(r, err, "its data belongs to another file, too");
    return 0;
}

/* ---- inodes ---- */

/* File capabilities are all that the attributes of our images hold. */
static int read_attributes(struct erofs_reader *r, struct inode *n, struct slice *capability,
                           struct error *err)
{
    uint8_t bytes[EROFS_XATTR_HEAD + EROFS_XATTR_ENTRY + 16 + EROFS_CAPABILITY_MAX] = {0};
    const uint8_t *entry = bytes + EROFS_XATTR_HEAD;
    const size_t name_len = sizeof(EROFS_CAPABILITY) - 1;
    uint16_t count = get_le16(n->bytes + EROFS_I_XATTRS), value_len;
    size_t len;

    *capability = slice_of(NULL, 0);
    if (count == 0)
        return 0;
    len = EROFS_XATTR_HEAD + 4 * ((size_t)count - 1);
    if (len > sizeof(bytes) || len < EROFS_XATTR_HEAD + EROFS_XATTR_ENTRY + name_len)
        return bad(r, err, "extended attributes that are not file capabilities");
    if (read_at(r, bytes, len, n->end, err) < 0)
        return -1;
    value_len = get_le16(entry + 2);
    if (bytes[4] != 0 || entry[0] != name_len || entry[1] != EROFS_XATTR_SECURITY ||
        memcmp(entry + EROFS_XATTR_ENTRY, EROFS_CAPABILITY, name_len) != 0 ||
        value_len > EROFS_CAPABILITY_MAX ||
        EROFS_XATTR_HEAD + EROFS_XATTR_ENTRY + name_len + value_len > len)
        return bad(r, err, "extended attributes that are not file capabilities");
    memcpy(r->capability, entry + EROFS_XATTR_ENTRY + name_len, value_len);
    *capability = slice_of(r->capability, value_len);
    n->head += len;
    n->end += len;
    return 0;
}

static int read_inode(struct erofs_reader *r, uint64_t nid, struct inode *n,
                      struct slice *capability, struct error *err)
{
    uint16_t format;

    if (nid >= r->size / EROFS_SLOT)
        return bad(r, err, "its inode lies beyond the image's end");
    if (read_at(r, n->bytes, sizeof(n->bytes), nid * EROFS_SLOT, err) < 0)
        return -1;
    format = get_le16(n->bytes + EROFS_I_FORMAT);
    n->nid = nid;
    n->head = EROFS_INODE_LEN;
    n->end = nid * EROFS_SLOT + EROFS_INODE_LEN;
    n->layout = (enum erofs_layout)(format >> 1);
    n->mode = get_le16(n->bytes + EROFS_I_MODE);
    n->size = get_le64(n->bytes + EROFS_I_SIZE);
    n->first = get_le32(n->bytes + EROFS_I_UNION);
    n->nlink = get_le32(n->bytes + EROFS_I_NLINK);
    if (!(format & 1) || n->layout > EROFS_INLINE ||
        (n->layout == EROFS_COMPRESSED && !S_ISREG(n->mode)))
        return bad(r, err, "an inode of a kind that capsule-cli does not write");
    if (n->size > CPIO_FILE_MAX * (uint64_t)EROFS_PIECE_MAX)
        return bad(r, err, "more content than an image can hold");
    return read_attributes(r, n, capability, err);
}

/* ---- content ---- */

/* Checks where the content lies and takes its blocks, except those of a compressed file. */
static int take_content(struct erofs_reader *r, const struct inode *n, struct error *err)
{
    uint64_t blocks = n->size / EROFS_BLOCK, end = n->size % EROFS_BLOCK;

    if (n->layout == EROFS_COMPRESSED || n->size == 0)
        return 0;
    if (n->layout == EROFS_INLINE && n->end % EROFS_BLOCK + end > EROFS_BLOCK)
        return bad(r, err, "the end of its content crosses a block");
    if (n->layout == EROFS_FLAT)
        blocks += end > 0;
    return blocks ? take_blocks(r, n->first, blocks, err) : 0;
}

/* Bytes of a file that is not compressed, of one block at most, from a block's start. */
static int read_flat(struct erofs_reader *r, const struct inode *n, uint64_t at, uint8_t *out,
                     size_t len, struct error *err)
{
    if (n->layout == EROFS_INLINE && at / EROFS_BLOCK == n->size / EROFS_BLOCK)
        return read_at(r, out, len, n->end, err);
    return read_at(r, out, len, (uint64_t)n->first * EROFS_BLOCK + at, err);
}

/*
 * The blocks of one piece by its index: 0 when it lies as it is, from *first on, else how many it
 * takes. -1 when the entries are not such as our writer makes.
 */
static int check_index(const uint8_t *index, size_t len, uint32_t *first)
{
    size_t whole = len / EROFS_BLOCK, count = (len + EROFS_BLOCK - 1) / EROFS_BLOCK;
    bool packed = get_le16(index) == EROFS_HEAD;
    uint16_t blocks = 1;

    *first = get_le32(index + EROFS_Z_BLOCK);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *e = index + i * EROFS_Z_ENTRY;
        bool end = packed && i == whole;
        uint16_t type = packed && i > 0 && !end ? EROFS_NEXT : packed && !end ? EROFS_HEAD : 0;

        if (get_le16(e) != type || get_le16(e + EROFS_Z_OFFSET) != (end ? len % EROFS_BLOCK : 0))
            return -1;
        if (!packed && get_le32(e + EROFS_Z_BLOCK) != *first + i)
            return -1;
        if (type == EROFS_NEXT && i == 1)
            blocks = get_le16(e + EROFS_Z_BACK) ^ EROFS_Z_COUNT;
        else if (type == EROFS_NEXT && get_le16(e + EROFS_Z_BACK) != i)
            return -1;
    }
    if (!packed)
        return 0;
    return blocks == 0 || blocks >= count ? -1 : blocks;
}

static int read_packed(struct erofs_reader *r, size_t len, struct error *err)
{
    const struct inode *n = &r->file;
    size_t entries = (len + EROFS_BLOCK - 1) / EROFS_BLOCK, packed_len, skip = 0;
    uint8_t index[EROFS_PIECE_MAX * EROFS_Z_ENTRY] = {0};
    uint64_t index_at =
        n->nid * EROFS_SLOT + erofs_index_at(n->head) + r->at / EROFS_BLOCK * EROFS_Z_ENTRY;
    uint32_t first;
    int blocks;

    if (read_at(r, index, entries * EROFS_Z_ENTRY, index_at, err) < 0)
        return -1;
    blocks = check_index(index, len, &first);
    if (blocks < 0)
        return bad(r, err, "an index that capsule-cli does not write");
    if (take_blocks(r, first, blocks ? (uint64_t)blocks : entries, err) < 0)
        return -1;
    if (blocks == 0)
        return read_at(r, r->piece, len, (uint64_t)first * EROFS_BLOCK, err);
    packed_len = (size_t)blocks * EROFS_BLOCK;
    if (read_at(r, r->packed, packed_len, (uint64_t)first * EROFS_BLOCK, err) < 0)
        return -1;
    while (skip < EROFS_BLOCK && r->packed[skip] == 0)
        skip++;
    if (LZ4_decompress_safe((const char *)r->packed + skip, (char *)r->piece,
                            (int)(packed_len - skip), (int)len) != (int)len)
        return bad(r, err, "compressed content that does not decompress");
    return 0;
}

int erofs_reader_data(struct erofs_reader *r, struct slice *piece, struct error *err)
{
    uint64_t left = r->file.size - r->at;
    size_t unit = r->file.layout == EROFS_COMPRESSED ? EROFS_PIECE : EROFS_BLOCK;
    size_t len = left < unit ? (size_t)left : unit;

    if (len == 0)
        return 0;
    if (r->file.layout == EROFS_COMPRESSED ? read_packed(r, len, err) < 0
                                           : read_flat(r, &r->file, r->at, r->piece, len, err) < 0)
        return -1;
    *piece = slice_of(r->piece, len);
    r->at += len;
    return 1;
}

/* ---- directories ---- */

static void enter(struct erofs_reader *r, const struct inode *n)
{
    if (r->depth == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 32;
        r->frames = xreallocarray(r->frames, r->cap, sizeof(*r->frames));
    }
    r->frames[r->depth++] = (struct frame){.nid = n->nid, .path_len = (uint32_t)strlen(r->path)};
}

static bool name_is_plain(struct slice name)
{
    return name.len > 0 && name.len <= EROFS_NAME_MAX && !memchr(name.ptr, '/', name.len) &&
           !memchr(name.ptr, '\0', name.len);
}

/*
 * Entry f->next of a directory's block. Returns 1 and the name, a part of the block, 0 when the
 * block has no more.
 */
static int block_entry(struct erofs_reader *r, struct frame *f, struct slice block,
                       struct slice *name, uint64_t *nid, struct error *err)
{
    size_t names_at, count, start, end;
    const uint8_t *e;

    if (block.len < EROFS_DIRENT)
        return bad(r, err, "a directory's block without names");
    names_at = get_le16(block.ptr + EROFS_D_NAME);
    count = names_at / EROFS_DIRENT;
    if (names_at % EROFS_DIRENT || count == 0 || names_at > block.len)
        return bad(r, err, "a directory's names overlap its entries");
    if (f->next >= count)
        return 0;
    e = block.ptr + f->next * EROFS_DIRENT;
    start = get_le16(e + EROFS_D_NAME);
    end = f->next + 1 < count ? get_le16(e + EROFS_DIRENT + EROFS_D_NAME) : block.len;
    if (start < names_at || end < start || end > block.len)
        return bad(r, err, "a directory's name lies outside its block");
    *name = slice_of(block.ptr + start, end - start);
    if (f->next + 1 == count) /* a block that is not full ends with zeros */
        name->len = strnlen((const char *)name->ptr, name->len);
    *nid = get_le64(e);
    f->next++;
    return name_is_plain(*name) ? 1 : bad(r, err, "a name that is empty, too long or not plain");
}

/* The next name of the innermost directory: 1, or 0 when there are no more. */
static int next_name(struct erofs_reader *r, struct slice *name, uint64_t *nid, struct error *err)
{
    struct frame *f = &r->frames[r->depth - 1];
    struct slice ignored;
    struct inode dir = {0};
    int rc;

    if (read_inode(r, f->nid, &dir, &ignored, err) < 0)
        return -1;
    for (;;) {
        uint64_t at = f->block * EROFS_BLOCK;
        size_t len;

        if (at >= dir.size)
            return 0;
        len = dir.size - at < EROFS_BLOCK ? (size_t)(dir.size - at) : EROFS_BLOCK;
        if (read_flat(r, &dir, at, r->packed, len, err) < 0)
            return -1;
        while ((rc = block_entry(r, f, slice_of(r->packed, len), name, nid, err)) > 0)
            if (!slice_equal_str(*name, ".") && !slice_equal_str(*name, ".."))
                return 1;
        if (rc < 0)
            return -1;
        f->block++;
        f->next = 0;
    }
}

/* ---- entries ---- */

static void describe(struct erofs_reader *r, const struct inode *n, struct cpio_entry *out)
{
    uint32_t device = n->first;

    *out = (struct cpio_entry){
        .name = slice_str(r->path),
        .mode = n->mode,
        .uid = get_le32(n->bytes + EROFS_I_UID),
        .gid = get_le32(n->bytes + EROFS_I_GID),
        .mtime = (int64_t)(get_le64(n->bytes + EROFS_I_MTIME) & UINT32_MAX),
        .size = S_ISREG(n->mode) || S_ISLNK(n->mode) ? n->size : 0,
        .nlink = S_ISDIR(n->mode) ? 1 : n->nlink,
        .ino = (uint32_t)n->nid,
        .archive = UINT32_MAX, /* none of the ramdisk's archives */
    };
    if (S_ISCHR(n->mode) || S_ISBLK(n->mode)) {
        out->rdev_major = device >> 8 & 0xfff;
        out->rdev_minor = (device & 0xff) | (device >> 12 & 0xfff00);
    }
}

/* Gives out the inode under the name that r->path is. */
static int give(struct erofs_reader *r, uint64_t nid, struct cpio_entry *out, struct error *err)
{
    struct slice capability;
    struct inode *n = &r->file;

    if (++r->entries > CPIO_ENTRIES_MAX)
        return error_set(err, ERR_LIMIT, "the image has more than %d entries", CPIO_ENTRIES_MAX);
    r->at = 0;
    n->size = 0;
    if (read_inode(r, nid, n, &capability, err) < 0)
        return -1;
    describe(r, n, out);
    out->capability = capability;
    if (!mark(r->nids_seen, nid)) {
        if (!S_ISREG(n->mode) || n->nlink < 2)
            return bad(r, err, "it is in the image twice");
        out->size = n->size = 0;
        return 1;
    }
    if (take_content(r, n, err) < 0)
        return -1;
    if (S_ISDIR(n->mode))
        enter(r, n);
    if (!S_ISREG(n->mode) && !S_ISLNK(n->mode))
        n->size = 0; /* nothing for erofs_reader_data() */
    return 1;
}

int erofs_reader_next(struct erofs_reader *r, struct cpio_entry *out, struct error *err)
{
    struct slice name = slice_of("", 0);
    uint64_t nid = 0;
    size_t len;
    int rc = 0;

    if (!r->started) {
        r->started = true;
        snprintf(r->path, sizeof(r->path), "%s", r->prefix);
        if (give(r, r->root, out, err) < 0)
            return -1;
        return S_ISDIR(out->mode) ? 1 : bad(r, err, "its root is not a directory");
    }
    while (r->depth > 0 && (rc = next_name(r, &name, &nid, err)) == 0)
        r->depth--;
    if (r->depth == 0 || rc < 0)
        return rc < 0 ? -1 : 0;
    len = r->frames[r->depth - 1].path_len;
    if (len + 1 + name.len > CPIO_NAME_MAX)
        return bad(r, err, "a path is longer than %d bytes", CPIO_NAME_MAX);
    r->path[len++] = '/';
    memcpy(r->path + len, name.ptr, name.len);
    r->path[len + name.len] = '\0';
    return give(r, nid, out, err);
}

/* ---- the whole ---- */

static int read_super(struct erofs_reader *r, struct error *err)
{
    uint8_t sb[EROFS_SB_LEN] = {0};

    if (read_at(r, sb, sizeof(sb), EROFS_SUPER_AT, err) < 0)
        return -1;
    if (get_le32(sb + EROFS_SB_MAGIC) != EROFS_MAGIC)
        return bad(r, err, "no EROFS image starts here");
    if (sb[EROFS_SB_BLOCK_BITS] != 12 || get_le32(sb + EROFS_SB_INCOMPAT) != EROFS_INCOMPAT ||
        get_le16(sb + EROFS_SB_ALGORITHMS) != EROFS_LZ4_BIT || get_le32(sb + EROFS_SB_META_BLOCK))
        return error_set(err, ERR_UNSUPPORTED,
                         "the EROFS image uses features that capsule-cli does not");
    r->root = get_le16(sb + EROFS_SB_ROOT_NID);
    return 0;
}

struct erofs_reader *erofs_reader_new(erofs_source *source, void *arg, uint64_t size,
                                      const char *prefix, struct error *err)
{
    struct erofs_reader *r = xcalloc(1, sizeof(*r));

    r->source = source;
    r->arg = arg;
    r->size = size < CPIO_FILE_MAX ? size : CPIO_FILE_MAX;
    r->prefix = prefix;
    r->nids_seen = xcalloc(1, (size_t)(r->size / EROFS_SLOT / 8 + 1));
    r->blocks_seen = xcalloc(1, (size_t)(r->size / EROFS_BLOCK / 8 + 1));
    r->piece = xmalloc(EROFS_PIECE);
    r->packed = xmalloc(EROFS_PIECE);
    if (read_super(r, err) == 0)
        return r;
    erofs_reader_free(r);
    return NULL;
}

void erofs_reader_free(struct erofs_reader *r)
{
    if (!r)
        return;
    free(r->nids_seen);
    free(r->blocks_seen);
    free(r->frames);
    free(r->piece);
    free(r->packed);
    free(r);
}
