#include "base/file.h"
#include "codec/crc32.h"
#include "eif/eif.h"
#include "eif/format.h"
#include "eif/measure.h"
#include "eif/sign.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

struct eif_writer {
    int fd;
    const char *name;
    struct eif_writer_options options;
    struct measurer *measurer;
    struct eif_section sections[EIF_SECTIONS_MAX];
    uint32_t crc[EIF_SECTIONS_MAX]; /* of each section's data */
    unsigned int count;
    unsigned int ramdisks;
    bool open; /* the last section still takes data */
    bool finished;
    uint64_t offset; /* where the next block goes */
    uint8_t *block;  /* of the measurer's ring, or NULL */
    size_t fill;     /* bytes in it */
};

struct eif_writer *eif_writer_new(int fd, const char *name,
                                  const struct eif_writer_options *options)
{
    struct eif_writer *w = xcalloc(1, sizeof(*w));

    w->fd = fd;
    w->name = name;
    w->options = *options;
    if (w->options.version == 0)
        w->options.version = EIF_VERSION;
    w->measurer = measurer_new();
    w->offset = EIF_HEADER_LEN;
    return w;
}

void eif_writer_free(struct eif_writer *w)
{
    if (!w)
        return;
    measurer_free(w->measurer);
    free(w);
}

static int write_at(struct eif_writer *w, const void *ptr, size_t len, uint64_t offset,
                    struct error *err)
{
    const uint8_t *p = ptr;

    while (len > 0) {
        ssize_t n = pwrite(w->fd, p, len, (off_t)offset);

        if (n >= 0) {
            p += n;
            offset += (uint64_t)n;
            len -= (size_t)n;
        } else if (errno != EINTR) {
            int sys = errno;

            error_sys(err, sys, "writing %s", w->name);
            if (sys == ENOSPC || sys == EDQUOT || sys == EFBIG)
                error_hint(err, "free some space there, or choose another output path");
            return -1;
        }
    }
    return 0;
}

static int out_of_order(const struct eif_writer *w, enum eif_section_type type, struct error *err)
{
    return error_set(err, ERR_INTERNAL, "writing %s: a %s section cannot come after %u sections",
                     w->name, eif_section_name(type), w->count);
}

static int check_order(const struct eif_writer *w, enum eif_section_type type, struct error *err)
{
    static const enum eif_section_type canonical[] = {EIF_KERNEL, EIF_CMDLINE, EIF_METADATA,
                                                      EIF_RAMDISK};
    unsigned int at = w->count < ARRAY_LEN(canonical) ? w->count : ARRAY_LEN(canonical) - 1;

    if (w->open || w->finished || type < EIF_KERNEL || type > EIF_METADATA)
        return out_of_order(w, type, err);
    if (!w->options.keep_order && type != canonical[at] && type != EIF_SIGNATURE)
        return out_of_order(w, type, err);
    if (w->count == EIF_SECTIONS_MAX)
        return error_set(err, ERR_LIMIT, "writing %s: an image has at most %d sections", w->name,
                         EIF_SECTIONS_MAX);
    return 0;
}

int eif_writer_begin(struct eif_writer *w, enum eif_section_type type, struct error *err)
{
    if (check_order(w, type, err) < 0)
        return -1;
    w->sections[w->count] = (struct eif_section){type, w->offset, 0};
    w->crc[w->count] = CRC32_EMPTY;
    w->count++;
    w->open = true;
    w->offset += EIF_SECTION_HEADER_LEN; /* which is written when the size is known */
    return 0;
}

/* Hashes and writes the block: the threads are given it first, so that they work meanwhile. */
static int flush(struct eif_writer *w, struct error *err)
{
    unsigned int at = w->count - 1;
    enum eif_section_type type = w->sections[at].type;
    struct slice bytes = slice_of(w->block, w->fill);

    w->block = NULL;
    w->fill = 0;
    if (bytes.len == 0)
        return 0;
    measurer_commit(w->measurer, bytes.len, type, w->ramdisks);
    if (write_at(w, bytes.ptr, bytes.len, w->offset, err) < 0)
        return -1;
    w->crc[at] = crc32_update(w->crc[at], bytes);
    w->offset += bytes.len;
    w->sections[at].size += bytes.len;
    return 0;
}

/* Room for at least one byte in the current block. */
static uint8_t *block_space(struct eif_writer *w, size_t *len)
{
    if (!w->block)
        w->block = measurer_space(w->measurer);
    *len = MEASURE_BLOCK - w->fill;
    return w->block + w->fill;
}

static int block_take(struct eif_writer *w, size_t len, struct error *err)
{
    w->fill += len;
    return w->fill == MEASURE_BLOCK ? flush(w, err) : 0;
}

static int check_open(const struct eif_writer *w, struct error *err)
{
    if (!w->open)
        return error_set(err, ERR_INTERNAL, "writing %s: no section is open", w->name);
    return 0;
}

int eif_writer_data(struct eif_writer *w, struct slice piece, struct error *err)
{
    if (check_open(w, err) < 0)
        return -1;
    while (piece.len > 0) {
        size_t len;
        uint8_t *to = block_space(w, &len);

        if (len > piece.len)
            len = piece.len;
        memcpy(to, piece.ptr, len);
        piece.ptr += len;
        piece.len -= len;
        if (block_take(w, len, err) < 0)
            return -1;
    }
    return 0;
}

int eif_writer_copy(struct eif_writer *w, int fd, uint64_t offset, uint64_t len, const char *from,
                    struct error *err)
{
    if (check_open(w, err) < 0)
        return -1;
    while (len > 0) {
        size_t part;
        uint8_t *to = block_space(w, &part);

        if (part > len)
            part = (size_t)len;
        if (fd_pread_full(fd, to, part, (off_t)offset, from, err) < 0)
            return -1;
        offset += part;
        len -= part;
        if (block_take(w, part, err) < 0)
            return -1;
    }
    return 0;
}

static void section_header(const struct eif_section *s, uint8_t h[EIF_SECTION_HEADER_LEN])
{
    put_be16(h, (uint16_t)s->type);
    put_be16(h + 2, 0);
    put_be64(h + 4, s->size);
}

int eif_writer_end(struct eif_writer *w, struct error *err)
{
    uint8_t h[EIF_SECTION_HEADER_LEN];
    struct eif_section *s;

    if (check_open(w, err) < 0 || flush(w, err) < 0)
        return -1;
    s = &w->sections[w->count - 1];
    if (s->type == EIF_RAMDISK) {
        if (s->size % 4 != 0 && !w->options.keep_order)
            return error_set(err, ERR_INVALID,
                             "writing %s: ramdisk %u has %" PRIu64
                             " bytes, which is not divisible by 4; the kernel would lose the next",
                             w->name, w->ramdisks, s->size);
        w->ramdisks++;
    }
    w->open = false;
    section_header(s, h);
    return write_at(w, h, sizeof(h), s->offset, err);
}

int eif_writer_add(struct eif_writer *w, enum eif_section_type type, struct slice bytes,
                   struct error *err)
{
    if (eif_writer_begin(w, type, err) < 0 || eif_writer_data(w, bytes, err) < 0)
        return -1;
    return eif_writer_end(w, err);
}

int eif_writer_add_file(struct eif_writer *w, enum eif_section_type type, int fd, const char *from,
                        struct error *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_sys(err, errno, "reading %s", from);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ERR_INVALID, "%s: not a regular file", from);
    if (eif_writer_begin(w, type, err) < 0 ||
        eif_writer_copy(w, fd, 0, (uint64_t)st.st_size, from, err) < 0)
        return -1;
    return eif_writer_end(w, err);
}

/* ---- the end ---- */

uint32_t eif_writer_section_crc(const struct eif_writer *w)
{
    return w->count ? w->crc[w->count - 1] : CRC32_EMPTY;
}

/* Of the whole file, whose header came last, without a second pass. */
static uint32_t file_crc(const struct eif_writer *w, const uint8_t *header)
{
    uint32_t crc = crc32_update(CRC32_EMPTY, slice_of(header, EIF_AT_CRC));

    for (unsigned int i = 0; i < w->count; i++) {
        uint8_t h[EIF_SECTION_HEADER_LEN];

        section_header(&w->sections[i], h);
        crc = crc32_update(crc, slice_of(h, sizeof(h)));
        crc = crc32_join(crc, w->crc[i], w->sections[i].size);
    }
    return crc;
}

static void fill_header(const struct eif_writer *w, uint8_t h[EIF_HEADER_LEN])
{
    memset(h, 0, EIF_HEADER_LEN);
    memcpy(h, ".eif", 4);
    put_be16(h + EIF_AT_VERSION, w->options.version);
    put_be16(h + EIF_AT_FLAGS, w->options.aarch64 ? EIF_FLAG_AARCH64 : 0);
    put_be64(h + EIF_AT_MEM, w->options.default_mem);
    put_be64(h + EIF_AT_CPUS, w->options.default_cpus);
    put_be16(h + EIF_AT_COUNT, (uint16_t)w->count);
    for (unsigned int i = 0; i < w->count; i++) {
        put_be64(h + EIF_AT_OFFSETS + (size_t)8 * i, w->sections[i].offset);
        put_be64(h + EIF_AT_SIZES + (size_t)8 * i, w->sections[i].size);
    }
    put_be32(h + EIF_AT_CRC, file_crc(w, h));
}

static bool has_section(const struct eif_writer *w, enum eif_section_type type)
{
    for (unsigned int i = 0; i < w->count; i++)
        if (w->sections[i].type == type)
            return true;
    return false;
}

static int add_signature(struct eif_writer *w, const struct eif_signer *signer,
                         struct eif_measurements *m, struct error *err)
{
    AUTO_BUF struct buf section = BUF(EIF_SIGNATURE_MAX);

    if (w->options.version < 3)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: images of version %u cannot be signed, only since version 3", w->name,
                         w->options.version);
    if (eif_signature_encode(signer, m->pcr0, &section, err) < 0 ||
        eif_writer_add(w, EIF_SIGNATURE, buf_slice(&section), err) < 0)
        return -1;
    memcpy(m->pcr8, eif_signer_certificate(signer)->pcr8, EIF_PCR_LEN);
    m->has_signature = true;
    return 0;
}

int eif_writer_finish(struct eif_writer *w, const struct eif_signer *signer,
                      struct eif_measurements *out, struct error *err)
{
    struct eif_measurements m = {0};
    uint8_t h[EIF_HEADER_LEN];

    if (w->open || w->finished || !has_section(w, EIF_KERNEL) || !has_section(w, EIF_CMDLINE) ||
        !has_section(w, EIF_RAMDISK) || (w->options.version >= 4 && !has_section(w, EIF_METADATA)))
        return error_set(err, ERR_INTERNAL, "writing %s: the image is not complete", w->name);
    measurer_finish(w->measurer, &m);
    if (signer && add_signature(w, signer, &m, err) < 0)
        return -1;
    w->finished = true;
    fill_header(w, h);
    if (write_at(w, h, sizeof(h), 0, err) < 0)
        return -1;
    if (out)
        *out = m;
    return 0;
}
