/*
 * Reading an EROFS image such as `capsule-cli build` writes (erofs_format.h), from a stranger:
 * every file of it, one after the other, as a ramdisk's entries come.
 *
 * What our writer never makes is refused, and no block or inode is taken twice, so that there are
 * no circles and a small image cannot unpack into more than its blocks can hold.
 */
#ifndef CAPSULE_EIF_EROFS_H
#define CAPSULE_EIF_EROFS_H

#include "codec/cpio.h"

/*
 * Reads exactly `len` bytes at `offset`, which lie in the image. Returns 0, or -1 with *err.
 */
typedef int erofs_source(void *arg, void *ptr, size_t len, uint64_t offset, struct error *err);

/*
 * Of an image of `size` bytes; entries are named `prefix` (borrowed), which is the root itself, and
 * `prefix`/PATH. NULL when it is not an image that we read: ERR_INVALID or ERR_UNSUPPORTED. Memory:
 * a bit for each block and each 32 bytes of the image, and two pieces of a file.
 */
struct erofs_reader;
struct erofs_reader *erofs_reader_new(erofs_source *source, void *arg, uint64_t size,
                                      const char *prefix, struct error *err) MUST_USE;
void erofs_reader_free(struct erofs_reader *r);
static inline void cleanup_erofs_reader(struct erofs_reader **r)
{
    erofs_reader_free(*r);
}
#define AUTO_EROFS_READER CLEANUP(cleanup_erofs_reader)

/*
 * As cpio_reader_next() and cpio_reader_data(): 1, 0 at the end, or -1 with *err. Parents come
 * before their children. Of several names of a file the first comes with the content. Names have
 * plain components.
 */
int erofs_reader_next(struct erofs_reader *r, struct cpio_entry *out, struct error *err);
int erofs_reader_data(struct erofs_reader *r, struct slice *piece, struct error *err);

#endif
