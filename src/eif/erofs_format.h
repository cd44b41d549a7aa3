/*
 * The part of EROFS that our images use (kernel sources, fs/erofs/erofs_fs.h; kernel documentation
 * "EROFS - Enhanced Read-Only File System"). Little-endian throughout.
 *
 * Block 0 holds the superblock. From block 1 on come inodes, each with what belongs to it: file
 * capabilities, the end of a small file or directory, or the index of a compressed file. Data
 * blocks follow. All inodes are extended ones (64 bytes); all blocks have 4 KiB.
 *
 * A file of more than one block is cut into pieces of EROFS_PIECE bytes. A piece that shrinks by a
 * block at least is one LZ4 block, right-aligned in as few blocks as it takes; any other lies as it
 * is. A file none of whose pieces shrinks is flat.
 */
#ifndef CAPSULE_EIF_EROFS_FORMAT_H
#define CAPSULE_EIF_EROFS_FORMAT_H

#include "base/slice.h"

#define EROFS_BLOCK     4096u
#define EROFS_SLOT      32u /* a nid counts these from the start of the image */
#define EROFS_PIECE     ((size_t)128 << 10)
#define EROFS_PIECE_MAX (EROFS_PIECE / EROFS_BLOCK) /* blocks of a piece */
#define EROFS_NAME_MAX  255
#define EROFS_INODE_LEN 64u

/* ---- the superblock ---- */

#define EROFS_SUPER_AT 1024u
#define EROFS_MAGIC    0xe0f5e1e2u

enum {
    EROFS_SB_MAGIC = 0,
    EROFS_SB_COMPAT = 8,
    EROFS_SB_BLOCK_BITS = 12,
    EROFS_SB_ROOT_NID = 14,
    EROFS_SB_INODES = 16,
    EROFS_SB_BLOCKS = 36,
    EROFS_SB_META_BLOCK = 40,
    EROFS_SB_INCOMPAT = 80,
    EROFS_SB_ALGORITHMS = 84,
    EROFS_SB_LEN = 128, /* then the settings of each algorithm, after their length */

    EROFS_COMPAT_MTIME = 2, /* inode times are modification times */
    /* Compressed data is right-aligned; settings are there; pieces take several blocks. */
    EROFS_INCOMPAT = 1 | 2,
    EROFS_LZ4_BIT = 1,
    EROFS_LZ4_CFG_LEN = 14, /* u16 longest match distance, u16 most blocks of a piece, zeros */
};

/* ---- inodes ---- */

enum {
    EROFS_I_FORMAT = 0, /* bit 0: extended; bits 1..3: layout */
    EROFS_I_XATTRS = 2,
    EROFS_I_MODE = 4,
    EROFS_I_SIZE = 8,
    EROFS_I_UNION = 16, /* first block, blocks in use (compressed) or device number */
    EROFS_I_INO = 20,
    EROFS_I_UID = 24,
    EROFS_I_GID = 28,
    EROFS_I_MTIME = 32,
    EROFS_I_NLINK = 44,
};

enum erofs_layout {
    EROFS_FLAT = 0,
    EROFS_COMPRESSED = 1, /* with an index entry for every block */
    EROFS_INLINE = 2,     /* the last, incomplete block follows the inode */
};

/* The longest end of a file that follows its inode: both must lie in one block. */
static inline size_t erofs_inline_max(size_t head)
{
    return EROFS_BLOCK - head;
}

/* ---- extended attributes ---- */

enum {
    EROFS_XATTR_HEAD = 12, /* zeros: nothing is shared */
    EROFS_XATTR_ENTRY = 4, /* u8 name length, u8 prefix, u16 value length */
    EROFS_XATTR_SECURITY = 6,
};
#define EROFS_CAPABILITY     "capability" /* with the prefix "security." */
#define EROFS_CAPABILITY_MAX 64           /* bytes of its value; the kernel knows 20 and 24 */

/* ---- directories ---- */

enum {
    EROFS_DIRENT = 12, /* u64 nid, u16 offset of the name in the block, u8 type, u8 zero */
    EROFS_D_NAME = 8,
    EROFS_D_TYPE = 10,
};

/* ---- compressed files ---- */

/*
 * After inode and attributes, at a multiple of 8: 16 bytes of header, then 8 bytes for every block
 * of the file. The first block of a piece says where the piece lies. The second counts the blocks
 * that it takes; where there is none, it takes one. The others count back and forth. Where the
 * file's last piece ends within a block, that block's entry only says where.
 */
enum {
    EROFS_Z_HEADER = 16,
    EROFS_Z_ADVISE = 4,
    EROFS_Z_BIG_PIECES = 2, /* in the advice: a piece may take more than one block */
    EROFS_Z_ENTRY = 8,      /* u16 type, u16 offset of the end or 0, u32 block or u16 back, forth */
    EROFS_Z_OFFSET = 2,
    EROFS_Z_BLOCK = 4,
    EROFS_Z_BACK = 4,
    EROFS_Z_FORTH = 6,
    EROFS_Z_COUNT = 0x800, /* in EROFS_Z_BACK: it is the number of blocks */
};
enum erofs_piece_type {
    EROFS_PLAIN = 0, /* one block as it is; with an offset: the end of the file */
    EROFS_HEAD = 1,
    EROFS_NEXT = 2,
};

static inline uint64_t erofs_index_at(uint64_t head)
{
    return (head + 7) / 8 * 8 + EROFS_Z_HEADER;
}

#endif
