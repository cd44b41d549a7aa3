/*
 * An image on its way out: a manifest, a configuration and layers, whose bytes may be put together
 * on the fly from memory and from runs of files. So a release image's layer, a tar that holds the
 * EIF, is sent to an archive, an engine or a registry without ever being written down.
 */
#ifndef CAPSULE_OCI_CONTENT_H
#define CAPSULE_OCI_CONTENT_H

#include "oci/blob.h"

#define CONTENT_PIECES_MAX 8
#define CONTENT_LAYERS_MAX CONFIG_LAYERS_MAX

/* A run of bytes: of a regular file, or, with fd -1, of memory. Both are the owner's. */
struct content_piece {
    int fd;
    uint64_t offset;      /* in the file */
    const uint8_t *bytes; /* fd -1 */
    uint64_t size;
    bool spare; /* an unnamed file of which this is all, and which may become the target's */
};

struct content_blob {
    const char *media_type; /* static */
    struct digest digest;
    uint64_t size;      /* of all pieces */
    const char *source; /* "HOST[:PORT]/NAME": a repository that has it, to be mounted from there
                           by a push to the same registry; NULL: none is known */
    struct content_piece pieces[CONTENT_PIECES_MAX];
    size_t piece_count;
};

/* Appends a piece and its size; more than CONTENT_PIECES_MAX is a defect of the caller (abort). */
void content_add_bytes(struct content_blob *b, struct slice bytes);
void content_add_file(struct content_blob *b, int fd, uint64_t offset, uint64_t size);
/*
 * Reads up to `len` bytes at `offset`, as many as there are; any order, any number of times, so
 * that a transfer can be resumed. 0 only at the end; -1 with err, also when a file has become
 * shorter than its piece.
 */
ssize_t content_read(const struct content_blob *b, uint64_t offset, void *to, size_t len,
                     struct error *err);
/* Reads it all once to set b->digest (sha256). */
int content_measure(struct content_blob *b, struct error *err);
/* Writes it all to `fd`, any kind of descriptor that blocks; `name` is for messages. */
int content_write(const struct content_blob *b, int fd, const char *name, struct error *err);

/* A whole image. Who made it owns what the pieces point to and frees that. */
struct content_image {
    struct content_blob manifest, config;
    struct content_blob *layers; /* lowest first */
    size_t layer_count;
};

#endif
