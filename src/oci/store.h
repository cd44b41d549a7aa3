/*
 * The local store of built images, under $XDG_DATA_HOME/capsule: an OCI image layout (OCI
 * image-spec image-layout.md), so that other tools can copy from it. A built image is an artifact
 * of type application/vnd.capsule.eif.v1 whose first layer is the EIF and whose second is the
 * manifest; its name is the annotation org.opencontainers.image.ref.name. The third, when there is
 * one, is the OCI manifest of its release image (release.h), followed by what that needs: so a
 * release image is kept without a second copy of the EIF.
 *
 * Any number of processes may use it at once: blobs appear under their digest by link(2) or
 * rename(2), the index is replaced under a lock, and collection waits for nobody - it is left out
 * while somebody writes. A crash leaves at most blobs that the next collection removes.
 */
#ifndef CAPSULE_OCI_STORE_H
#define CAPSULE_OCI_STORE_H

#include "oci/blob.h"

#define STORE_ARTIFACT_TYPE "application/vnd.capsule.eif.v1"
#define STORE_EIF_TYPE      "application/vnd.capsule.eif.v1"
#define STORE_MANIFEST_TYPE "application/vnd.capsule.manifest.v1+yaml"
#define STORE_PART_TYPE     "application/vnd.capsule.part.v1"
#define STORE_IMAGES_MAX    4096
#define STORE_NAME_MAX      255

struct store;

/* Opens, and makes when missing (0700), `dir`; NULL: $XDG_DATA_HOME/capsule or
 * ~/.local/share/capsule. NULL with err. */
struct store *store_open(const char *dir, struct error *err);
void store_close(struct store *s);
static inline void cleanup_store(struct store **s)
{
    store_close(*s);
}
#define AUTO_STORE CLEANUP(cleanup_store)
/* Its directory, for messages; borrowed. */
const char *store_dir(const struct store *s);

struct stored_blob {
    struct digest digest; /* sha256 */
    uint64_t size;
};

/*
 * A blob being written, in the store's own directory, so that nothing is copied: write to `fd` in
 * any order, then commit. Dropped, or after a crash, nothing is left.
 */
struct store_writer {
    int fd;
    char *temp; /* NULL while the file has no name */
};
#define STORE_WRITER_NONE ((struct store_writer){.fd = -1})
int store_write(struct store *s, struct store_writer *w, struct error *err);
/* Reads the file once for its digest, syncs it and gives it its name. Releases the writer. */
int store_commit(struct store *s, struct store_writer *w, struct stored_blob *out,
                 struct error *err);
void store_drop(struct store_writer *w);
#define AUTO_STORE_WRITER CLEANUP(store_drop)
/* The three in one, for small things. */
int store_put(struct store *s, struct slice bytes, struct stored_blob *out, struct error *err);

struct stored_image {
    char name[STORE_NAME_MAX + 1]; /* "" when it has none */
    struct stored_blob self;       /* its OCI manifest */
    struct stored_blob eif;
    struct stored_blob manifest;   /* capsule.yaml */
    struct stored_blob release;    /* OCI manifest of the release image; size 0: there is none */
    struct digest release_id;      /* of its configuration, as engines call it */
    struct stored_blob head, tail; /* of its topmost layer, what is before and behind the EIF */
};
#define STORE_KEPT_MAX 256

/*
 * Adds an image made of blobs of this store under `name`, which then names it alone: a former one
 * of that name is no longer listed. Sets image->name and image->self; the other members are given.
 * `kept`, at most STORE_KEPT_MAX (abort), are blobs that stay as long as the image does.
 */
int store_add(struct store *s, const char *name, struct stored_image *image,
              const struct stored_blob *kept, size_t kept_count, struct error *err);
/*
 * Finds by name ("app" also finds "app:latest"), by the digest of its OCI manifest or by the ID of
 * its release image (both "sha256:HEX").
 */
int store_find(struct store *s, const char *ref, struct stored_image *out, struct error *err);
/* All images, in the order of the index; the caller frees *out. */
int store_list(struct store *s, struct stored_image **out, size_t *count, struct error *err);
/* Takes an image off the index (by name, digest or ID), then collects. */
int store_remove(struct store *s, const char *ref, struct error *err);
/*
 * Removes blobs that no image refers to. Does nothing while another process is writing. `removed`
 * (may be NULL) gets the bytes set free.
 */
int store_collect(struct store *s, uint64_t *removed, struct error *err);
/* Opens a blob for reading. Its size is checked, its digest is not (that would read it whole). */
int store_open_blob(struct store *s, const struct stored_blob *which, struct blob *out,
                    struct error *err);

#endif
