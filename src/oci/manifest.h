/*
 * Images as manifests and indexes describe them (OCI image-spec manifest.md, image-index.md;
 * Docker's schema 2 is the same under other names), wherever their blobs are.
 */
#ifndef CAPSULE_OCI_MANIFEST_H
#define CAPSULE_OCI_MANIFEST_H

#include "oci/image.h"

struct descriptor {
    const char *media_type; /* borrowed from the JSON; "" when not told */
    struct digest digest;
    uint64_t size;
};

/* Reads one; the media type is borrowed from the JSON. ERR_INVALID without digest and size. */
int oci_descriptor_read(const json_t *o, struct descriptor *d, struct error *err);

enum media {
    MEDIA_OTHER,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    MEDIA_CONFIG,
    MEDIA_LAYER,
    MEDIA_LAYER_FOREIGN,
    MEDIA_LAYER_ENCRYPTED,
};
enum media media_of(const char *type);
/* The same type as a static string; NULL for types that are not known here. */
const char *media_name(const char *type);

/* Where blobs come from. */
struct blob_source {
    /*
     * Opens what a descriptor names; the blob has the size of its descriptor. The digest is checked
     * by who reads it.
     */
    int (*open)(void *arg, const struct descriptor *d, struct blob *out, struct error *err);
    /* Told of all layers before the first is opened, to get them at once. May be NULL. */
    int (*prepare)(void *arg, const struct descriptor *layers, size_t count, struct error *err);
    void *arg;
    /*
     * Appends the descriptors of what claims to be about `subject` to the array; whether it is has
     * to be looked up in each. NULL where nobody keeps such a list.
     */
    int (*referrers)(void *arg, const struct digest *subject, json_t *list, struct error *err);
};

/*
 * Loads the image that an index leads to - by `tag` (may be NULL) of this index, then by platform
 * through further ones - into `out`, whose tree is empty. The JSON is borrowed.
 */
int image_from_index(const struct blob_source *src, const json_t *index, const char *tag,
                     const struct image_options *options, struct image *out, struct error *err);
/* The same for a manifest, whose bytes are `text`. */
int image_from_manifest(const struct blob_source *src, const json_t *manifest, struct slice text,
                        const struct image_options *options, struct image *out, struct error *err);

#endif
