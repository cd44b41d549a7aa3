#include "host/ext4_super.h"

/* Byte offsets of the little-endian fields, and the values that count. */
enum {
    AT_BLOCKS_LO = 4,
    AT_FREE_LO = 12,
    AT_LOG_BLOCK_SIZE = 24,
    AT_MAGIC = 56,
    AT_STATE = 58,
    AT_INCOMPAT = 96,
    AT_BLOCKS_HI = 0x150,
    AT_FREE_HI = 0x158,

    MAGIC = 0xef53,
    STATE_VALID = 1,
    STATE_ERRORS = 2,
    INCOMPAT_RECOVER = 4, /* the journal is to be replayed */
    INCOMPAT_64BIT = 0x80,
    LOG_BLOCK_SIZE_MAX = 6,
};

bool ext4_super_parse(struct slice bytes, struct ext4_super *out)
{
    const uint8_t *p = bytes.ptr;
    uint64_t blocks, free_blocks;
    uint32_t log_size;

    if (bytes.len != EXT4_SUPER_SIZE || get_le16(p + AT_MAGIC) != MAGIC)
        return false;
    log_size = get_le32(p + AT_LOG_BLOCK_SIZE);
    if (log_size > LOG_BLOCK_SIZE_MAX)
        return false;
    blocks = get_le32(p + AT_BLOCKS_LO);
    free_blocks = get_le32(p + AT_FREE_LO);
    if (get_le32(p + AT_INCOMPAT) & INCOMPAT_64BIT) {
        blocks |= (uint64_t)get_le32(p + AT_BLOCKS_HI) << 32;
        free_blocks |= (uint64_t)get_le32(p + AT_FREE_HI) << 32;
    }
    if (blocks == 0 || blocks > (uint64_t)INT64_MAX >> (10 + log_size))
        return false;
    if (free_blocks > blocks)
        free_blocks = blocks;
    *out = (struct ext4_super){
        .block_size = 1024u << log_size,
        .bytes = blocks << (10 + log_size),
        .free_bytes = free_blocks << (10 + log_size),
        .clean = (get_le16(p + AT_STATE) & STATE_VALID) != 0 &&
                 (get_le32(p + AT_INCOMPAT) & INCOMPAT_RECOVER) == 0,
        .damaged = (get_le16(p + AT_STATE) & STATE_ERRORS) != 0,
    };
    return true;
}
