/*
 * A ramdisk of an EIF, entry by entry, from a stranger. A file system image in it (IMAGE_ENTRY of
 * codec/image_entry.h) is gone through as if its files were entries below rootfs/, so that the two
 * forms in which a ramdisk carries an app's root look the same from here.
 */
#ifndef CAPSULE_EIF_RAMDISK_H
#define CAPSULE_EIF_RAMDISK_H

#include "codec/cpio.h"
#include "eif/eif.h"

/*
 * Bytes of a ramdisk section's data that the kernel does not unpack when it retains its ramdisks:
 * the file system image, when that is the first entry, as in images of ours; else 0.
 */
uint64_t eif_ramdisk_stays(int fd, const struct eif_section *section);

/*
 * Ramdisk `index`, counted from 0, of the image in the regular file `fd`, which stays the caller's
 * and must outlive it, as must `name`, for messages. Checks the EIF's structure (eif_read_info()),
 * not its checksum or measurements. NULL with *err; ERR_NOT_FOUND when there is no such ramdisk.
 */
struct eif_ramdisk;
struct eif_ramdisk *eif_ramdisk_open(int fd, const char *name, unsigned int index,
                                     struct error *err) MUST_USE;
void eif_ramdisk_close(struct eif_ramdisk *d);
static inline void cleanup_eif_ramdisk(struct eif_ramdisk **d)
{
    eif_ramdisk_close(*d);
}
#define AUTO_EIF_RAMDISK CLEANUP(cleanup_eif_ramdisk)

/* As cpio_reader_next() and cpio_reader_data(). */
int eif_ramdisk_next(struct eif_ramdisk *d, struct cpio_entry *out, struct error *err);
int eif_ramdisk_data(struct eif_ramdisk *d, struct slice *piece, struct error *err);

#endif
