/*
 * An image as one tar archive that is made while it is read: an OCI image layout in a tar file, or
 * what `docker load` takes (Docker image-spec v1.2: manifest.json beside the blobs). Equal images
 * give equal bytes.
 */
#ifndef CAPSULE_OCI_ARCHIVE_STREAM_H
#define CAPSULE_OCI_ARCHIVE_STREAM_H

#include "oci/content.h"

struct archive_stream;

/*
 * `name` is the tag of an OCI archive (NULL: none) or NAME:TAG for Docker. The image must outlive
 * the stream.
 */
struct archive_stream *archive_stream_oci(const struct content_image *image,
                                          const char *name) MUST_USE;
struct archive_stream *archive_stream_docker(const struct content_image *image,
                                             const char *name) MUST_USE;
void archive_stream_free(struct archive_stream *s);
static inline void cleanup_archive_stream(struct archive_stream **s)
{
    archive_stream_free(*s);
}
#define AUTO_ARCHIVE_STREAM CLEANUP(cleanup_archive_stream)

/* Bytes of all of it. */
uint64_t archive_stream_size(const struct archive_stream *s);
/*
 * The next bytes, up to `len`; 0 only at the end, -1 with err. Shows the blobs on their way
 * (progress.h): a bar on a terminal, and a line for each that has been read whole.
 */
ssize_t archive_stream_read(struct archive_stream *s, void *to, size_t len, struct error *err);
/* Starts over. */
void archive_stream_rewind(struct archive_stream *s);
/* Writes all of it to `fd`, any kind of descriptor; `where` is for messages. */
int archive_stream_write(struct archive_stream *s, int fd, const char *where, struct error *err);

#endif
