/*
 * A tree written as an EROFS file system image, compressed with LZ4 (eif/erofs_format.h).
 *
 * Our own writer, because the bytes are measured: they depend on the tree and this code alone,
 * where those of mkfs.erofs change from release to release; and because nothing has to be unpacked
 * on the host to become one, so owners and device nodes need no root.
 */
#ifndef CAPSULE_OCI_EROFS_H
#define CAPSULE_OCI_EROFS_H

#include "oci/tree.h"

struct erofs_options {
    /* Called now and then with bytes of file content read so far; may be NULL. */
    void (*progress)(void *arg, uint64_t done);
    void *progress_arg;
};

/*
 * Writes the image from the start of `fd`, an empty seekable file named `name` in messages, and
 * gives its size, a multiple of 4096. Equal trees give equal bytes. Directories come with "." and
 * "..", names of one file share an inode, times are whole seconds, and of extended attributes only
 * file capabilities are kept. Memory: 4 bytes for each entry and one piece of a file. Content that
 * changed since it was listed is ERR_INVALID; an image that passes `max` bytes is ERR_LIMIT.
 */
int erofs_write(struct tree *t, int fd, const char *name, uint64_t max,
                const struct erofs_options *options, uint64_t *size, struct error *err);

#endif
