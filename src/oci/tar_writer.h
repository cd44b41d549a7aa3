/*
 * Tar archives written header by header (POSIX.1-2017 pax, "ustar Interchange Format"), so that
 * equal members give equal bytes: owner 0:0 without a name, no time but the given one.
 */
#ifndef CAPSULE_OCI_TAR_WRITER_H
#define CAPSULE_OCI_TAR_WRITER_H

#include "base/slice.h"

#define TAR_BLOCK 512
/* Longest name of a member. */
#define TAR_WRITER_NAME_MAX 100

/*
 * Appends a directory's header. `name` ends in '/'; `mode` has permission bits only; times past
 * what a header holds (the year 2242) are lowered to that. A name that is too long is a defect of
 * the caller (abort), as is a full buf.
 */
void tar_put_dir(struct buf *out, const char *name, uint32_t mode, int64_t mtime);
/*
 * Appends a regular file's header; `size` bytes and tar_padding() zeros have to follow. From 8 GiB
 * on the size is in the binary form that GNU tar made and that every reader knows.
 */
void tar_put_file(struct buf *out, const char *name, uint32_t mode, uint64_t size, int64_t mtime);
/* Zeros that fill up the last block of a file of `size` bytes: their count and where they are. */
struct slice tar_padding(uint64_t size);
/* The two blocks of zeros that end an archive. */
struct slice tar_end(void);

#endif
