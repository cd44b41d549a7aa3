/* Unpacking a ramdisk of an EIF, with the file system image in it if there is one. */
#include "base/file.h"
#include "codec/image_entry.h"
#include "eif/eif.h"
#include "eif/erofs.h"
#include "eif/format.h"
#include "eif/unpack.h"

#include <sys/stat.h>

#define IMAGE_PREFIX "rootfs"

/* The section of the EIF, its archives, and the image that is being gone through, if any. */
struct ramdisk {
    int fd;
    uint64_t offset, size; /* of the section's data */
    uint64_t at;           /* from there */
    struct cpio_reader *archive;
    struct erofs_reader *image;
    uint64_t image_at; /* in the file */
};

static void ramdisk_free(struct ramdisk *d)
{
    erofs_reader_free(d->image);
    cpio_reader_free(d->archive);
}

static ssize_t read_section(void *arg, uint8_t *ptr, size_t len, struct error *err)
{
    struct ramdisk *d = arg;

    if (len > d->size - d->at)
        len = (size_t)(d->size - d->at);
    if (fd_pread_full(d->fd, ptr, len, (off_t)(d->offset + d->at), "the image's ramdisk", err) < 0)
        return -1;
    d->at += len;
    return (ssize_t)len;
}

static int read_image(void *arg, void *ptr, size_t len, uint64_t offset, struct error *err)
{
    const struct ramdisk *d = arg;

    return fd_pread_full(d->fd, ptr, len, (off_t)(d->image_at + offset), "the image's ramdisk",
                         err);
}

static int open_image(struct ramdisk *d, uint64_t size, struct error *err)
{
    uint64_t at = cpio_reader_offset(d->archive);

    if (at > d->size || size > d->size - at)
        return error_set(err, ERR_INVALID, IMAGE_ENTRY " ends beyond the ramdisk");
    d->image_at = d->offset + at;
    d->image = erofs_reader_new(read_image, d, size, IMAGE_PREFIX, err);
    return d->image ? 0 : -1;
}

static int next_entry(void *arg, struct cpio_entry *out, struct error *err)
{
    struct ramdisk *d = arg;

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

static int entry_data(void *arg, struct slice *piece, struct error *err)
{
    struct ramdisk *d = arg;

    return d->image ? erofs_reader_data(d->image, piece, err)
                    : cpio_reader_data(d->archive, piece, err);
}

int eif_unpack_ramdisk(int eif_fd, unsigned int index, int dir_fd,
                       const struct unpack_options *options, struct error *err)
{
    CLEANUP(ramdisk_free) struct ramdisk disk = {.fd = eif_fd};
    const struct unpack_source source = {next_entry, entry_data, &disk};
    const struct eif_section *section;
    struct eif_info info;

    if (eif_read_info(eif_fd, "the image", &info, NULL, err) < 0)
        return -1;
    section = eif_section_find(&info, EIF_RAMDISK, index);
    if (!section)
        return error_set(err, ERR_NOT_FOUND, "the image has no ramdisk %u", index);
    disk.offset = section->offset + EIF_SECTION_HEADER_LEN;
    disk.size = section->size;
    disk.archive = cpio_reader_new(read_section, &disk);
    if (unpack_archive(&source, dir_fd, options, NULL, err) < 0)
        return error_wrap(err, "ramdisk %u", index);
    return 0;
}
