/* The superblock of an ext4 image: as much of it as tells size and state. */
#ifndef CAPSULE_HOST_EXT4_SUPER_H
#define CAPSULE_HOST_EXT4_SUPER_H

#include "base/slice.h"

#define EXT4_SUPER_OFFSET 1024
#define EXT4_SUPER_SIZE   1024

struct ext4_super {
    uint32_t block_size; /* bytes: 1024 to 65536 */
    uint64_t bytes;      /* of the file system; fits 63 bits */
    uint64_t free_bytes; /* at most `bytes` */
    bool clean;          /* unmounted in order */
    bool damaged;        /* the kernel or e2fsck found errors */
};

/*
 * Reads the fields of Linux's fs/ext4/ext4.h, struct ext4_super_block. False for anything that is
 * not a plausible superblock of EXT4_SUPER_SIZE bytes.
 */
bool ext4_super_parse(struct slice bytes, struct ext4_super *out) MUST_USE;

#endif
