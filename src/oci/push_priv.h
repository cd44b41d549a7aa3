/* Between push.c, upload.c (one blob) and referrer.c. */
#ifndef CAPSULE_OCI_PUSH_PRIV_H
#define CAPSULE_OCI_PUSH_PRIV_H

#include "oci/fetch.h"
#include "oci/push.h"
#include "oci/reference.h"

/* One blob on its way: the `arg` of a struct fetch. */
struct upload {
    const struct registry *registry;
    const struct content_blob *blob;
    enum {
        UPLOAD_LOOK,   /* is it there? */
        UPLOAD_BEGIN,  /* where to send it */
        UPLOAD_CHUNK,  /* a part of it */
        UPLOAD_ASK,    /* how much has arrived? */
        UPLOAD_COMMIT, /* what is left of it, and its digest */
    } stage;
    bool whole;          /* not in chunks: it is small, or the registry takes none */
    bool from_elsewhere; /* mounting has been tried */
    char *location;      /* where to send; NULL: not begun */
    uint64_t offset;     /* as far as the registry has it */
    uint64_t chunk;
    const char *how; /* for the log, at the end */
};

/* Makes *f the dialog that brings u->blob into the registry. fetch_free() and upload_free(). */
void upload_prepare(struct upload *u, const struct registry *r, const struct content_blob *blob,
                    struct fetch *f);
void upload_free(struct upload *u);

/* The name of the repository that a blob is to be mounted from; NULL: none. Borrowed. */
const char *upload_source(const struct registry *r, const struct content_blob *blob);
/* ERR_INVALID when the registry names another digest than ours. */
int push_check_digest(const struct fetch_answer *a, const struct digest *ours, struct error *err);

/* Opens the registry of a reference for a push. The caller closes *r and frees *ref, always. */
int push_open(const char *where, const struct content_image *image,
              const struct image_options *options, struct reference *ref, struct registry *r,
              struct error *err);
/* Pushes configuration and layers. */
int push_blobs(struct registry *r, const struct content_image *image, struct error *err);
/*
 * Puts a manifest under a tag or digest. `subject` (may be NULL) gets what the registry says that
 * it lists the manifest for, "" when it says nothing; the caller frees it.
 */
int push_manifest(struct registry *r, const struct content_blob *manifest, const char *which,
                  char **subject, struct error *err);

#endif
