#include "codec/crc32.h"

#include <zlib.h>

uint32_t crc32_update(uint32_t crc, struct slice bytes)
{
    /* zlib takes a null pointer as the request for the initial value. */
    if (bytes.len == 0)
        return crc;
    return (uint32_t)crc32_z(crc, bytes.ptr, bytes.len);
}

uint32_t crc32_join(uint32_t a, uint32_t b, uint64_t b_len)
{
    return (uint32_t)crc32_combine(a, b, (z_off_t)b_len);
}
