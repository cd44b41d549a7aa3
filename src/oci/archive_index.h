/*
 * Archives that hold images (tar, maybe compressed): an index of the members, so that blobs are
 * read where they lie and in any order. What cannot be read so - compressed, or not a file but a
 * pipe - is first written to an unnamed temporary file.
 */
#ifndef CAPSULE_OCI_ARCHIVE_INDEX_H
#define CAPSULE_OCI_ARCHIVE_INDEX_H

#include "oci/blob.h"

#define ARCHIVE_MEMBERS_MAX 65536

struct archive_index;

/* Opens FILE. `max` bounds what it may unpack to (0: the default of unpack.h). NULL with err. */
struct archive_index *archive_open(const char *file, uint64_t max, struct error *err);
/* The same for a regular file that is open already; takes `fd` over, on failure too. */
struct archive_index *archive_open_fd(int fd, const char *name, uint64_t max, struct error *err);
void archive_close(struct archive_index *a);
static inline void cleanup_archive(struct archive_index **a)
{
    archive_close(*a);
}
#define AUTO_ARCHIVE CLEANUP(cleanup_archive)

/*
 * Finds a regular file, through links within the archive. The blob borrows the archive's
 * descriptor. ERR_NOT_FOUND when there is none.
 */
int archive_find(const struct archive_index *a, const char *path, struct blob *out,
                 struct error *err);

#endif
