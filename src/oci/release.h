/*
 * Release images (spec/cli-and-build.md 3.4): a base with one layer on top that holds the EIF and
 * its manifest, where capsule-shell looks for them. The store keeps the EIF once; the layer is that
 * file between a few kilobytes, and is streamed to wherever the image goes.
 */
#ifndef CAPSULE_OCI_RELEASE_H
#define CAPSULE_OCI_RELEASE_H

#include "oci/content.h"
#include "oci/release_base.h"

#define RELEASE_EIF_PATH      "/enclave/application.eif"
#define RELEASE_MANIFEST_PATH "/enclave/capsule.yaml"

/* "key" = "value": an annotation of the OCI manifest and a label of the configuration. */
struct release_label {
    const char *key, *value;
};

struct release_input {
    const struct release_base *base;
    struct stored_blob eif;
    struct slice manifest; /* capsule.yaml, the author's bytes */
    int64_t mtime;         /* of files, and of the image */
    const struct release_label *labels;
    size_t label_count;
};

/*
 * Makes the release image of blobs of the store and adds both under `name` (store_add()). The EIF
 * is read once. *out is the stored image.
 */
int release_store(struct store *s, const char *name, const struct release_input *in,
                  struct stored_image *out, struct error *err);

/* A release image that can be sent; valid as long as its parts are open. */
struct release {
    struct content_image image;
    struct buf manifest, config, head, tail;
    struct blob eif;
    struct blob *base_layers;
    size_t base_count;
    char *base_source; /* "HOST[:PORT]/NAME" that has the base's layers, or NULL */
};
void release_close(struct release *r);
#define AUTO_RELEASE CLEANUP(release_close)

/*
 * Opens the release image of a stored one, byte for byte as it was made. ERR_NOT_FOUND when it has
 * none. The caller closes *out, also on failure.
 */
int release_open(struct store *s, const struct stored_image *image, struct release *out,
                 struct error *err);

#endif
