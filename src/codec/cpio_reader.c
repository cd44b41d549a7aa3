/* Reading newc, from hostile input. */
#include "codec/cpio.h"

#include <inttypes.h>
#include <sys/stat.h>

#define HEADER_LEN  110
#define FIELDS      13
#define BUFFER_SIZE 131072

struct cpio_reader {
    cpio_source *source;
    void *arg;
    uint8_t buffer[BUFFER_SIZE];
    size_t pos;
    size_t len;
    bool at_end;     /* the source has no more */
    uint64_t offset; /* of the byte at `pos`, from the start of the input */
    uint64_t left;   /* content bytes of the entry not yet given out */
    bool inside;     /* between the first entry of an archive and its trailer */
    uint32_t entries;
    uint32_t archive;
    char name[CPIO_NAME_MAX + 1];
};

struct cpio_reader *cpio_reader_new(cpio_source *source, void *arg)
{
    struct cpio_reader *r = xcalloc(1, sizeof(*r));

    r->source = source;
    r->arg = arg;
    return r;
}

void cpio_reader_free(struct cpio_reader *r)
{
    free(r);
}

static int malformed(const struct cpio_reader *r, struct error *err, const char *what)
{
    return error_set(err, ERR_INVALID, "malformed ramdisk at byte %" PRIu64 ": %s", r->offset,
                     what);
}

/* Makes `want` bytes available at `pos` unless the input ends before; returns how many there are.
 */
static int fill(struct cpio_reader *r, size_t want, size_t *have, struct error *err)
{
    while (r->len - r->pos < want && !r->at_end) {
        ssize_t n;

        memmove(r->buffer, r->buffer + r->pos, r->len - r->pos);
        r->len -= r->pos;
        r->pos = 0;
        n = r->source(r->arg, r->buffer + r->len, BUFFER_SIZE - r->len, err);
        if (n < 0)
            return -1;
        if (n == 0)
            r->at_end = true;
        r->len += (size_t)n;
    }
    *have = r->len - r->pos;
    return 0;
}

static void consume(struct cpio_reader *r, size_t len)
{
    r->pos += len;
    r->offset += len;
}

static int need(struct cpio_reader *r, size_t want, struct error *err)
{
    size_t have;

    if (fill(r, want, &have, err) < 0)
        return -1;
    return have < want ? malformed(r, err, "it ends in the middle of an entry") : 0;
}

static int skip_padding(struct cpio_reader *r, struct error *err)
{
    size_t len = (size_t)(-r->offset & 3);

    if (need(r, len, err) < 0)
        return -1;
    consume(r, len);
    return 0;
}

/* ---- between archives ---- */

/* Eats zero bytes; false at the end of the input. */
static int skip_zeros(struct cpio_reader *r, bool *more, struct error *err)
{
    for (;;) {
        size_t have, n = 0;

        if (fill(r, 1, &have, err) < 0)
            return -1;
        while (n < have && r->buffer[r->pos + n] == 0)
            n++;
        consume(r, n);
        *more = n < have;
        if (*more || have == 0)
            return 0;
    }
}

static int refuse_start(struct cpio_reader *r, struct error *err)
{
    static const struct {
        const char *magic, *name;
        size_t len;
    } kinds[] = {
        {"\x1f\x8b", "gzip", 2},
        {"\x28\xb5\x2f\xfd", "zstd", 4},
        {"\xfd"
         "7zXZ",
         "xz", 5},
        {"\x02\x21\x4c\x18", "lz4", 4},
        {"BZh", "bzip2", 3},
        {"\x5d\x00\x00", "lzma", 3},
        {"\x89LZO", "lzo", 4},
    };
    size_t have;

    if (fill(r, 6, &have, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (have >= kinds[i].len && memcmp(r->buffer + r->pos, kinds[i].magic, kinds[i].len) == 0)
            return error_set(err, ERR_UNSUPPORTED,
                             "the ramdisk is compressed with %s; only plain newc archives can be "
                             "read",
                             kinds[i].name);
    return malformed(r, err, "no newc archive starts here");
}

/* ---- headers ---- */

static bool hex_field(const uint8_t *p, uint32_t *out)
{
    uint32_t value = 0;

    for (int i = 0; i < 8; i++) {
        uint8_t c = p[i];
        uint32_t digit;

        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (uint32_t)(c | 0x20) - 'a' + 10;
        else
            return false;
        value = value << 4 | digit;
    }
    *out = value;
    return true;
}

static int parse_header(struct cpio_reader *r, struct cpio_entry *out, uint32_t *name_size,
                        struct error *err)
{
    const uint8_t *p = r->buffer + r->pos;
    uint32_t f[FIELDS];

    if (memcmp(p, "070701", 6) != 0)
        return malformed(r, err, "an entry does not start with 070701");
    for (size_t i = 0; i < FIELDS; i++)
        if (!hex_field(p + 6 + 8 * i, &f[i]))
            return malformed(r, err, "a header field is not hexadecimal");
    *out = (struct cpio_entry){.ino = f[0],
                               .mode = f[1],
                               .uid = f[2],
                               .gid = f[3],
                               .nlink = f[4],
                               .mtime = f[5],
                               .size = f[6],
                               .dev_major = f[7],
                               .dev_minor = f[8],
                               .rdev_major = f[9],
                               .rdev_minor = f[10]};
    *name_size = f[11];
    if (*name_size < 2 || *name_size > CPIO_NAME_MAX + 1)
        return malformed(r, err, "a name is empty or longer than 4095 bytes");
    return 0;
}

static int read_entry(struct cpio_reader *r, struct cpio_entry *out, struct error *err)
{
    uint32_t name_size = 0;

    if (need(r, HEADER_LEN, err) < 0 || parse_header(r, out, &name_size, err) < 0)
        return -1;
    consume(r, HEADER_LEN);
    if (need(r, name_size, err) < 0)
        return -1;
    memcpy(r->name, r->buffer + r->pos, name_size);
    if (strnlen(r->name, name_size) != name_size - 1)
        return malformed(r, err, "a name is not ended by its only NUL");
    consume(r, name_size);
    out->name = slice_of(r->name, name_size - 1);
    r->left = out->size;
    return skip_padding(r, err);
}

/* Drops content that nobody asked for, and the padding behind it. */
static int finish_entry(struct cpio_reader *r, struct error *err)
{
    struct slice piece;
    int rc;

    while ((rc = cpio_reader_data(r, &piece, err)) > 0)
        ;
    /* What follows the trailer is zeros anyway. */
    return rc == 0 && r->inside ? skip_padding(r, err) : rc;
}

int cpio_reader_next(struct cpio_reader *r, struct cpio_entry *out, struct error *err)
{
    if (finish_entry(r, err) < 0)
        return -1;
    for (;;) {
        if (!r->inside) {
            bool more = false;

            if (skip_zeros(r, &more, err) < 0)
                return -1;
            if (!more)
                return 0;
            if (r->buffer[r->pos] != '0')
                return refuse_start(r, err);
            if (r->offset & 3)
                return malformed(r, err,
                                 "an archive starts at an offset that is not divisible by 4; the "
                                 "kernel would stop unpacking here");
        }
        if (read_entry(r, out, err) < 0)
            return -1;
        r->inside = !slice_equal_str(out->name, "TRAILER!!!");
        if (r->inside)
            break;
        if (finish_entry(r, err) < 0)
            return -1;
        r->archive++;
    }
    out->archive = r->archive;
    if (++r->entries > CPIO_ENTRIES_MAX)
        return error_set(err, ERR_LIMIT, "the ramdisk has more than %d entries", CPIO_ENTRIES_MAX);
    return 1;
}

uint64_t cpio_reader_offset(const struct cpio_reader *r)
{
    return r->offset;
}

int cpio_reader_data(struct cpio_reader *r, struct slice *piece, struct error *err)
{
    size_t have;

    if (r->left == 0)
        return 0;
    if (need(r, 1, err) < 0)
        return -1;
    have = r->len - r->pos;
    if (have > r->left)
        have = (size_t)r->left;
    *piece = slice_of(r->buffer + r->pos, have);
    consume(r, have);
    r->left -= have;
    return 1;
}
