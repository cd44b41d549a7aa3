#include "eif/ramdisk.h"

#include "base/file.h"
#include "codec/image_entry.h"
#include "eif/eif.h"
#include "eif/erofs.h"
#include "eif/format.h"

#include <sys/stat.h>

#define IMAGE_PREFIX "rootfs"

struct eif_ramdisk {
    int fd;
    const char *name;
    uint64_t offset, size; /* of the section's data */
    uint64_t at;           /* from there */
    struct cpio_reader *archive;
    struct erofs_reader *image; /* that is being gone through, if any */
    uint64_t image_at;          /* in the file */
};

static ssize_t read_section(void *arg, uint8_t *ptr, size_t len, struct error *err)
{
    struct eif_ramdisk *d = arg;

    if (len > d->size - d->at)
        len = (size_t)(d->size - d->at);
    if (fd_pread_full(d->fd, ptr, len, (off_t)(d->offset + d->at), d->name, err) < 0)
        return -1;
    d->at += len;
    return (ssize_t)len;
}

static int read_image(void *arg, void *ptr, size_t len, uint64_t offset, struct error *err)
{
    const struct eif_ramdisk *d = arg;

    return fd_pread_full(d->fd, ptr, len, (off_t)(d->image_at + offset), d->name, err);
}

static int open_image(struct eif_ramdisk *d, uint64_t size, struct error *err)
{
    uint64_t at = cpio_reader_offset(d->archive);

    if (at > d->size || size > d->size - at)
        return error_set(err, ERR_INVALID, IMAGE_ENTRY " ends beyond the ramdisk");
    d->image_at = d->offset + at;
    d->image = erofs_reader_new(read_image, d, size, IMAGE_PREFIX, err);
    return d->image ? 0 : -1;
}

int eif_ramdisk_next(struct eif_ramdisk *d, struct cpio_entry *out, struct error *err)
{
    for (;;) {
        int rc = d->image ? erofs_reader_next(d->image, out, err)
                          : cpio_reader_next(d->archive, out, err);

        if (!d->image && rc > 0 && slice_equal_str(out->name, IMAGE_ENTRY) && S_ISREG(out->mode)) {
            if (open_image(d, out->size, err) < 0)
                return -1;
            continue;
        }
        if (!d->image || rc != 0)
            return rc;
        erofs_reader_free(d->image);
        d->image = NULL;
    }
}

int eif_ramdisk_data(struct eif_ramdisk *d, struct slice *piece, struct error *err)
{
    return d->image ? erofs_reader_data(d->image, piece, err)
                    : cpio_reader_data(d->archive, piece, err);
}

uint64_t eif_ramdisk_stays(int fd, const struct eif_section *section)
{
    struct eif_ramdisk d = {.fd = fd,
                            .name = "the image",
                            .offset = section->offset + EIF_SECTION_HEADER_LEN,
                            .size = section->size};
    AUTO_CPIO_READER struct cpio_reader *archive = cpio_reader_new(read_section, &d);
    struct cpio_entry first;
    struct error ignored;

    if (cpio_reader_next(archive, &first, &ignored) != 1 ||
        !slice_equal_str(first.name, IMAGE_ENTRY) || first.size > section->size)
        return 0;
    return first.size;
}

struct eif_ramdisk *eif_ramdisk_open(int fd, const char *name, unsigned int index,
                                     struct error *err)
{
    const struct eif_section *section;
    struct eif_ramdisk *d;
    struct eif_info info;

    if (eif_read_info(fd, name, &info, NULL, err) < 0)
        return NULL;
    section = eif_section_find(&info, EIF_RAMDISK, index);
    if (!section) {
        error_set(err, ERR_NOT_FOUND, "%s: it has no ramdisk %u", name, index);
        return NULL;
    }
    d = xcalloc(1, sizeof(*d));
    d->fd = fd;
    d->name = name;
    d->offset = section->offset + EIF_SECTION_HEADER_LEN;
    d->size = section->size;
    d->archive = cpio_reader_new(read_section, d);
    return d;
}

void eif_ramdisk_close(struct eif_ramdisk *d)
{
    if (!d)
        return;
    erofs_reader_free(d->image);
    cpio_reader_free(d->archive);
    free(d);
}
