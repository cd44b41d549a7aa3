/* The superblock of a host mount's image. */
#include "host/ext4_super.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ext4_super s;

    if (!ext4_super_parse(slice_of(data, size), &s))
        return 0;
    if (s.block_size < 1024 || s.block_size > 65536 || s.bytes == 0 || s.bytes > INT64_MAX ||
        s.bytes % s.block_size != 0 || s.free_bytes > s.bytes)
        abort();
    return 0;
}
