/* Signing an image that exists. */
#include "base/file.h"
#include "codec/crc32.h"
#include "eif/eif.h"
#include "eif/format.h"
#include "eif/sign.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* An image on its way from one file to another; its checksum is compared on the way. */
struct copy {
    int fd;
    const char *path;
    struct eif_info info;
    struct eif_writer *w;
    uint32_t crc; /* of the source, so far */
};

static void cleanup_copy(struct copy *c)
{
    fd_close(&c->fd);
    eif_writer_free(c->w);
}

/* The old signature is dropped, but it counts in the source's checksum. */
static int skip_signature(const struct copy *c, const struct eif_section *s, uint32_t *crc,
                          struct error *err)
{
    AUTO_BUF struct buf bytes = BUF(EIF_SIGNATURE_MAX);

    if (eif_read_section(c->fd, c->path, s, &bytes, err) < 0)
        return -1;
    *crc = crc32_update(CRC32_EMPTY, buf_slice(&bytes));
    return 0;
}

static int copy_section(struct copy *c, const struct eif_section *s, uint32_t *crc,
                        struct error *err)
{
    if (eif_writer_begin(c->w, s->type, err) < 0 ||
        eif_writer_copy(c->w, c->fd, s->offset + EIF_SECTION_HEADER_LEN, s->size, c->path, err) <
            0 ||
        eif_writer_end(c->w, err) < 0)
        return -1;
    *crc = eif_writer_section_crc(c->w);
    return 0;
}

static int copy_sections(struct copy *c, struct error *err)
{
    uint8_t h[EIF_AT_CRC];

    if (fd_pread_full(c->fd, h, sizeof(h), 0, c->path, err) < 0)
        return -1;
    c->crc = crc32_update(CRC32_EMPTY, slice_of(h, sizeof(h)));
    for (unsigned int i = 0; i < c->info.count; i++) {
        const struct eif_section *s = &c->info.sections[i];
        uint8_t head[EIF_SECTION_HEADER_LEN];
        uint32_t crc = CRC32_EMPTY;

        if (fd_pread_full(c->fd, head, sizeof(head), (off_t)s->offset, c->path, err) < 0)
            return -1;
        if (s->type == EIF_SIGNATURE ? skip_signature(c, s, &crc, err) < 0
                                     : copy_section(c, s, &crc, err) < 0)
            return -1;
        c->crc = crc32_update(c->crc, slice_of(head, sizeof(head)));
        c->crc = crc32_join(c->crc, crc, s->size);
    }
    return 0;
}

static int open_source(struct copy *c, struct stat *st, struct error *err)
{
    c->fd = open(c->path, O_RDONLY | O_CLOEXEC);
    if (c->fd < 0 || fstat(c->fd, st) < 0)
        return error_sys(err, errno, "opening %s", c->path);
    return eif_read_info(c->fd, c->path, &c->info, NULL, err);
}

int eif_sign_file(const char *path, const char *out_path, const struct eif_signer *signer,
                  struct eif_measurements *out, struct error *err)
{
    CLEANUP(atomic_file_drop) struct atomic_file target = ATOMIC_FILE_NONE;
    CLEANUP(cleanup_copy) struct copy c = {.fd = -1, .path = path};
    struct eif_writer_options options;
    struct stat st = {0};

    if (open_source(&c, &st, err) < 0)
        return -1;
    options = (struct eif_writer_options){.version = c.info.version,
                                          .aarch64 = eif_is_aarch64(&c.info),
                                          .default_mem = c.info.default_mem,
                                          .default_cpus = c.info.default_cpus,
                                          .keep_order = true};
    if (atomic_file_open(&target, out_path, st.st_mode & 0777, err) < 0)
        return -1;
    c.w = eif_writer_new(target.fd, out_path, &options);
    if (copy_sections(&c, err) < 0)
        return -1;
    if (c.crc != c.info.crc)
        return error_set(err, ERR_INVALID,
                         "%s: %s: checksum %08x, the header says %08x; a damaged image is not "
                         "signed",
                         path, eif_fault_name(EIF_CRC), c.crc, c.info.crc);
    if (eif_writer_finish(c.w, signer, out, err) < 0)
        return -1;
    return atomic_file_commit(&target, err);
}
