/*
 * rpm's own database, "ndb", as SUSE has it (rpm's lib/backend/ndb/rpmpkg.c is its only
 * description). All numbers are little-endian. Pages of slots come first, the first two slots being
 * the head:
 *
 *     head  "RpmP", version 0, generation, count of slot pages, next package number, 12 unused
 * bytes slot  "Slot", package number, first block, count of blocks; first block 0: the slot is free
 *
 * Then come blobs, of whole blocks of 16 bytes:
 *
 *     "BlbS", package number, time, length; the bytes, a package header; zeros;
 *     Adler-32 of all that, length again, "BlbE"
 */
#define ZLIB_CONST
#include "oci/packages_priv.h"

#include "base/mem.h"

#include <zlib.h>

#define PAGE      4096u
#define BLOCK     16u
#define HEAD_LEN  32u
#define SLOT_LEN  16u
#define BLOB_HEAD 16u
#define BLOB_TAIL 12u

#define MAGIC(a, b, c, d)                                                                          \
    ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

struct ndb {
    struct slice all;
    uint64_t pages_len; /* bytes of slot pages */
    uint8_t *taken;     /* a bit for each block */
    struct package_list *to;
};

static int damaged(const char *what, struct error *err)
{
    return error_set(err, ERR_INVALID, "it is damaged: %s", what);
}

/* A blob that lies in the file: is it whole, and the one that is looked for? */
static int read_blob(struct ndb *n, uint32_t number, struct slice blob, struct error *err)
{
    const uint8_t *tail;
    uint64_t len, want;

    if (blob.len < 2 * BLOCK)
        return damaged("a package without room for its frame", err);
    tail = blob.ptr + blob.len - BLOB_TAIL;
    len = get_le32(blob.ptr + 12);
    want = (BLOB_HEAD + len + BLOB_TAIL + BLOCK - 1) / BLOCK * BLOCK;
    if (get_le32(blob.ptr) != MAGIC('B', 'l', 'b', 'S') || get_le32(blob.ptr + 4) != number ||
        want != blob.len || get_le32(tail + 4) != len ||
        get_le32(tail + 8) != MAGIC('B', 'l', 'b', 'E'))
        return damaged("a package is not where it should be", err);
    if (adler32_z(1, blob.ptr, blob.len - BLOB_TAIL) != get_le32(tail))
        return damaged("the checksum of a package is wrong", err);
    return packages_read_rpm_header(slice_of(blob.ptr + BLOB_HEAD, (size_t)len), n->to, err);
}

/* Blobs do not overlap: none stands for two, and all are read in one file's time. */
static int take_blocks(struct ndb *n, uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count; i++) {
        const uint8_t bit = (uint8_t)(1u << (i % 8));

        if (n->taken[i / 8] & bit)
            return -1;
        n->taken[i / 8] |= bit;
    }
    return 0;
}

static int read_slot(struct ndb *n, const uint8_t *slot, struct error *err)
{
    uint32_t number = get_le32(slot + 4), first = get_le32(slot + 8), count = get_le32(slot + 12);
    uint64_t start = (uint64_t)first * BLOCK, len = (uint64_t)count * BLOCK;

    if (get_le32(slot) != MAGIC('S', 'l', 'o', 't'))
        return damaged("a slot without its mark", err);
    if (first == 0)
        return 0;
    if (number == 0 || start < n->pages_len || start > n->all.len || len > n->all.len - start)
        return damaged("a slot leads out of it", err);
    if (take_blocks(n, first, count) < 0)
        return damaged("packages overlap", err);
    return read_blob(n, number, slice_of(n->all.ptr + start, (size_t)len), err);
}

int packages_read_ndb(struct slice db, struct package_list *to, struct error *err)
{
    struct ndb n = {.all = db, .to = to};
    AUTO_FREE uint8_t *taken = NULL;

    if (db.len < PAGE || get_le32(db.ptr) != MAGIC('R', 'p', 'm', 'P'))
        return error_set(err, ERR_INVALID, "not a database of rpm's");
    if (get_le32(db.ptr + 4) != 0)
        return error_set(err, ERR_UNSUPPORTED, "version %u of rpm's database is not known",
                         get_le32(db.ptr + 4));
    n.pages_len = (uint64_t)get_le32(db.ptr + 12) * PAGE;
    if (n.pages_len == 0 || n.pages_len > db.len)
        return damaged("it ends among its slots", err);
    n.taken = taken = xcalloc(db.len / BLOCK / 8 + 1, 1);
    for (uint64_t at = HEAD_LEN; at < n.pages_len; at += SLOT_LEN)
        if (read_slot(&n, db.ptr + at, err) < 0)
            return -1;
    return 0;
}
