#include "base/file.h"
#include "codec/crc32.h"
#include "eif/eif.h"
#include "eif/format.h"
#include "eif/measure.h"
#include "eif/sign.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

const char *eif_section_name(enum eif_section_type type)
{
    static const char *const names[] = {"invalid", "kernel",    "cmdline",
                                        "ramdisk", "signature", "metadata"};

    return (unsigned int)type < ARRAY_LEN(names) ? names[type] : "unknown";
}

const char *eif_fault_name(enum eif_fault fault)
{
    static const char *const names[] = {
        "sound",         "truncated",       "magic",        "version",      "flags",
        "section-count", "section-bounds",  "section-type", "section-size", "duplicate-section",
        "section-order", "missing-section", "crc",
    };

    return (unsigned int)fault < ARRAY_LEN(names) ? names[fault] : "unknown";
}

const struct eif_section *eif_section_find(const struct eif_info *info, enum eif_section_type type,
                                           unsigned int nth)
{
    for (unsigned int i = 0; i < info->count; i++)
        if (info->sections[i].type == type && nth-- == 0)
            return &info->sections[i];
    return NULL;
}

/* ---- the checks of section 13 ---- */

struct check {
    int fd;
    const char *name;
    struct eif_info *info;
    enum eif_fault fault;
    struct error *err;
};

static int fault(struct check *c, enum eif_fault what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int fault(struct check *c, enum eif_fault what, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    c->fault = what;
    return error_set(c->err, ERR_INVALID, "%s: %s: %s", c->name, eif_fault_name(what), text);
}

static int check_header(struct check *c, const uint8_t *h)
{
    struct eif_info *info = c->info;

    if (memcmp(h, ".eif", 4) != 0)
        return fault(c, EIF_MAGIC, "not an enclave image file (it does not start with \".eif\")");
    info->version = get_be16(h + EIF_AT_VERSION);
    if (info->version < 2 || info->version > 4)
        return fault(c, EIF_BAD_VERSION, "version %u; 2, 3 and 4 can be read", info->version);
    info->flags = get_be16(h + EIF_AT_FLAGS);
    if (info->flags & ~EIF_FLAG_AARCH64)
        return fault(c, EIF_FLAGS, "unknown flags 0x%04x", info->flags);
    info->count = get_be16(h + EIF_AT_COUNT);
    if (info->count < 2 || info->count > EIF_SECTIONS_MAX)
        return fault(c, EIF_SECTION_COUNT, "%u sections; an image has 2 to %d", info->count,
                     EIF_SECTIONS_MAX);
    info->default_mem = get_be64(h + EIF_AT_MEM);
    info->default_cpus = get_be64(h + EIF_AT_CPUS);
    info->crc = get_be32(h + EIF_AT_CRC);
    return 0;
}

/* Section i against its table entry; *end is where the one before ended and moves on. */
static int check_section(struct check *c, unsigned int i, uint64_t offset, uint64_t size,
                         uint64_t *end)
{
    uint64_t file_size = c->info->file_size;
    uint8_t h[EIF_SECTION_HEADER_LEN];
    unsigned int type;
    uint64_t own_size;

    if (offset != *end)
        return fault(c, EIF_SECTION_BOUNDS,
                     "section %u is said to start at %" PRIu64 ", the one before ends at %" PRIu64,
                     i, offset, *end);
    if (file_size - *end < sizeof(h))
        return fault(c, EIF_SECTION_BOUNDS, "the file ends before section %u", i);
    if (fd_pread_full(c->fd, h, sizeof(h), (off_t)offset, c->name, c->err) < 0)
        return -1;
    type = get_be16(h);
    own_size = get_be64(h + 4);
    if (type < EIF_KERNEL || type > EIF_METADATA)
        return fault(c, EIF_SECTION_TYPE, "section %u has unknown type %u", i, type);
    if (own_size != size)
        return fault(c, EIF_SECTION_SIZE,
                     "section %u (%s) says it has %" PRIu64 " bytes, the table says %" PRIu64 "%s",
                     i, eif_section_name(type), own_size, size,
                     type == EIF_SIGNATURE
                         ? "; nitro-cli sign-eif leaves such a table when it replaces a signature"
                         : "");
    *end += sizeof(h);
    if (size > file_size - *end)
        return fault(c, EIF_SECTION_BOUNDS, "section %u (%s) runs past the end of the file", i,
                     eif_section_name(type));
    *end += size;
    if (type != EIF_RAMDISK && eif_section_find(c->info, type, 0))
        return fault(c, EIF_DUPLICATE_SECTION, "section %u is a second %s", i,
                     eif_section_name(type));
    if (type == EIF_RAMDISK && !eif_section_find(c->info, EIF_KERNEL, 0))
        return fault(c, EIF_SECTION_ORDER, "section %u is a ramdisk before the kernel", i);
    c->info->sections[i] = (struct eif_section){type, offset, size};
    return 0;
}

static int check_table(struct check *c, const uint8_t *h)
{
    static const enum eif_section_type needed[] = {EIF_KERNEL, EIF_CMDLINE, EIF_RAMDISK,
                                                   EIF_METADATA};
    struct eif_info *info = c->info;
    unsigned int count = info->count;
    uint64_t end = EIF_HEADER_LEN;

    info->count = 0;
    for (unsigned int i = 0; i < count; i++) {
        if (check_section(c, i, get_be64(h + EIF_AT_OFFSETS + (size_t)8 * i),
                          get_be64(h + EIF_AT_SIZES + (size_t)8 * i), &end) < 0)
            return -1;
        info->count = i + 1;
    }
    if (end != info->file_size)
        return fault(c, EIF_SECTION_BOUNDS, "%" PRIu64 " bytes follow the last section",
                     info->file_size - end);
    for (size_t i = 0; i < ARRAY_LEN(needed); i++) {
        if (needed[i] == EIF_METADATA && info->version < 4)
            continue;
        if (!eif_section_find(info, needed[i], 0))
            return fault(c, EIF_MISSING_SECTION, "there is no %s section",
                         eif_section_name(needed[i]));
    }
    return 0;
}

static int check_all(struct check *c)
{
    uint8_t h[EIF_HEADER_LEN];
    struct stat st;

    if (fstat(c->fd, &st) < 0)
        return error_sys(c->err, errno, "reading %s", c->name);
    if (!S_ISREG(st.st_mode))
        return error_set(c->err, ERR_INVALID, "%s: not a regular file", c->name);
    c->info->file_size = (uint64_t)st.st_size;
    if (st.st_size < EIF_HEADER_LEN)
        return fault(c, EIF_TRUNCATED, "%jd bytes; the header of an enclave image alone has %d",
                     (intmax_t)st.st_size, EIF_HEADER_LEN);
    if (fd_pread_full(c->fd, h, sizeof(h), 0, c->name, c->err) < 0 || check_header(c, h) < 0)
        return -1;
    return check_table(c, h);
}

int eif_read_info(int fd, const char *name, struct eif_info *out, enum eif_fault *fault_out,
                  struct error *err)
{
    struct eif_info info = {0};
    struct check c = {.fd = fd, .name = name, .info = &info, .err = err};
    int rc = check_all(&c);

    if (fault_out)
        *fault_out = c.fault;
    if (rc == 0)
        *out = info;
    return rc;
}

int eif_read_section(int fd, const char *name, const struct eif_section *section, struct buf *out,
                     struct error *err)
{
    uint8_t *to = section->size <= out->max ? buf_reserve(out, (size_t)section->size) : NULL;

    if (!to)
        return error_set(err, ERR_LIMIT,
                         "%s: the %s section has %" PRIu64 " bytes, the limit is %zu", name,
                         eif_section_name(section->type), section->size, out->max);
    if (fd_pread_full(fd, to, (size_t)section->size,
                      (off_t)(section->offset + EIF_SECTION_HEADER_LEN), name, err) < 0)
        return -1;
    out->len += (size_t)section->size;
    return 0;
}

/* ---- measuring ---- */

static int measure_section(int fd, const char *name, const struct eif_section *s,
                           unsigned int ramdisk, struct measurer *m, uint32_t *crc,
                           struct error *err)
{
    uint64_t offset = s->offset + EIF_SECTION_HEADER_LEN;
    uint8_t h[EIF_SECTION_HEADER_LEN];

    if (fd_pread_full(fd, h, sizeof(h), (off_t)s->offset, name, err) < 0)
        return -1;
    *crc = crc32_update(*crc, slice_of(h, sizeof(h)));
    for (uint64_t left = s->size; left > 0;) {
        size_t len = left < MEASURE_BLOCK ? (size_t)left : MEASURE_BLOCK;
        uint8_t *block = measurer_space(m);

        if (fd_pread_full(fd, block, len, (off_t)offset, name, err) < 0)
            return -1;
        measurer_commit(m, len, s->type, ramdisk);
        *crc = crc32_update(*crc, slice_of(block, len));
        offset += len;
        left -= len;
    }
    return 0;
}

int eif_measure_fd(int fd, const char *name, const struct eif_info *info,
                   struct eif_measurements *out, uint32_t *crc, struct error *err)
{
    AUTO_MEASURER struct measurer *m = measurer_new();
    unsigned int ramdisk = 0;
    uint8_t h[EIF_AT_CRC] = {0};
    uint32_t sum;

    if (fd_pread_full(fd, h, sizeof(h), 0, name, err) < 0)
        return -1;
    sum = crc32_update(CRC32_EMPTY, slice_of(h, sizeof(h)));
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    for (unsigned int i = 0; i < info->count; i++) {
        const struct eif_section *s = &info->sections[i];

        if (measure_section(fd, name, s, ramdisk, m, &sum, err) < 0)
            return -1;
        if (s->type == EIF_RAMDISK)
            ramdisk++;
    }
    memset(out, 0, sizeof(*out));
    measurer_finish(m, out);
    out->has_signature = eif_section_find(info, EIF_SIGNATURE, 0) != NULL;
    *crc = sum;
    return 0;
}

static int measure_certificate(int fd, const char *path, const struct eif_section *section,
                               uint8_t *pcr8, struct error *err)
{
    CLEANUP(eif_signature_free) struct eif_signature signature = EIF_SIGNATURE_NONE;
    CLEANUP(eif_certificate_free) struct eif_certificate certificate = EIF_CERTIFICATE_NONE;

    if (eif_signature_read(fd, path, section, &signature, err) < 0 ||
        eif_certificate_parse(buf_slice(&signature.certificate_pem), &certificate, err) < 0)
        return error_wrap(err, "%s", path);
    memcpy(pcr8, certificate.pcr8, EIF_PCR_LEN);
    return 0;
}

int eif_measure_sound(int fd, const char *name, struct eif_measurements *out, struct error *err)
{
    struct eif_measurements m;
    const struct eif_section *signature;
    struct eif_info info = {0};
    uint32_t crc = 0;

    if (eif_read_info(fd, name, &info, NULL, err) < 0 ||
        eif_measure_fd(fd, name, &info, &m, &crc, err) < 0)
        return -1;
    if (crc != info.crc)
        return error_set(err, ERR_INVALID, "%s: %s: checksum %08x, the header says %08x", name,
                         eif_fault_name(EIF_CRC), crc, info.crc);
    signature = eif_section_find(&info, EIF_SIGNATURE, 0);
    if (signature && measure_certificate(fd, name, signature, m.pcr8, err) < 0)
        return -1;
    *out = m;
    return 0;
}

int eif_measure_file(const char *path, struct eif_measurements *out, struct error *err)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_sys(err, errno, "opening %s", path);
    return eif_measure_sound(fd, path, out, err);
}
