/*
 * The app ramdisk: what to start, and the app's root in one of two forms (spec/eif.md section 9.4).
 *
 *     cpio   launch.json, rootfs/ and the tree below it
 *     erofs  launch.json, and the tree as the file system image IMAGE_ENTRY (codec/image_entry.h)
 *
 * For a foreign init, cmd and env stand in place of launch.json (section 9.3), and the form is
 * cpio.
 */
#ifndef CAPSULE_CLI_APP_RAMDISK_H
#define CAPSULE_CLI_APP_RAMDISK_H

#include "cli/assemble.h"
#include "codec/cpio.h"

/* Writes it as the next section. The erofs form lies in a temporary file first. */
int app_ramdisk_write(const struct assemble_input *in, struct eif_writer *w, struct error *err);

/*
 * Whether cmd and env can carry what to start, one argument or variable a line: ERR_INVALID names
 * one with a newline.
 */
int app_ramdisk_check_lines(const struct launch *l, struct error *err);

/* ---- pieces of any ramdisk ---- */

/* A cpio_sink whose argument is the EIF writer, in a section. */
int ramdisk_sink(void *arg, struct slice bytes, struct error *err);
/* A whole file of root's. */
int ramdisk_file(struct cpio_writer *cpio, const char *name, uint32_t mode, int64_t mtime,
                 struct slice content, struct error *err);
int ramdisk_directory(struct cpio_writer *cpio, const char *name, uint32_t mode, uint32_t uid,
                      uint32_t gid, int64_t mtime, struct error *err);

#endif
