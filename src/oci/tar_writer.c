#include "oci/tar_writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MTIME_MAX  INT64_C(077777777777)
#define OCTAL_MAX  UINT64_C(077777777777) /* what eleven digits hold */
#define SIZE_AT    124
#define SUM_AT     148
#define BINARY_BIT 0x80

static const uint8_t zeros[2 * TAR_BLOCK];

/* Where fields lie is in the standard's table; all that is not written stays zero. */
static void put(struct buf *out, char type, const char *name, uint32_t mode, uint64_t size,
                int64_t mtime)
{
    char h[TAR_BLOCK] = {0};
    size_t len = strlen(name);
    unsigned int sum = 0;

    if (len > TAR_WRITER_NAME_MAX)
        abort();
    memcpy(h, name, len);
    snprintf(h + 100, 8, "%07o", mode & 07777u);
    snprintf(h + 108, 8, "%07o", 0u);
    snprintf(h + 116, 8, "%07o", 0u);
    if (size <= OCTAL_MAX) {
        snprintf(h + SIZE_AT, 12, "%011" PRIo64, size);
    } else {
        h[SIZE_AT] = (char)BINARY_BIT;
        put_be64((uint8_t *)h + SIZE_AT + 4, size);
    }
    snprintf(h + 136, 12, "%011" PRIo64,
             (uint64_t)(mtime < 0           ? 0
                        : mtime > MTIME_MAX ? MTIME_MAX
                                            : mtime));
    memset(h + SUM_AT, ' ', 8);
    h[156] = type;
    memcpy(h + 257, "ustar\00000", 8);
    for (size_t i = 0; i < sizeof(h); i++)
        sum += (uint8_t)h[i];
    snprintf(h + SUM_AT, 8, "%06o", sum);
    if (buf_append(out, h, sizeof(h)) < 0)
        abort();
}

void tar_put_dir(struct buf *out, const char *name, uint32_t mode, int64_t mtime)
{
    put(out, '5', name, mode, 0, mtime);
}

void tar_put_file(struct buf *out, const char *name, uint32_t mode, uint64_t size, int64_t mtime)
{
    put(out, '0', name, mode, size, mtime);
}

struct slice tar_padding(uint64_t size)
{
    return slice_of(zeros, (size_t)(-size % TAR_BLOCK));
}

struct slice tar_end(void)
{
    return slice_of(zeros, sizeof(zeros));
}
