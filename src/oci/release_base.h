/*
 * What a release image is built on: an image whose program is capsule-shell, its layers kept as
 * blobs of the local store, compressed or not as they came.
 */
#ifndef CAPSULE_OCI_RELEASE_BASE_H
#define CAPSULE_OCI_RELEASE_BASE_H

#include "oci/image.h"
#include "oci/store.h"

#define RELEASE_BASE_LAYERS_MAX 126 /* one more is appended, and engines stack 128 */
#define RELEASE_SHELL_PATH      "/usr/local/bin/capsule-shell"

struct release_layer {
    const char *media_type; /* of OCI, static */
    struct stored_blob blob;
};

struct release_base {
    char *reference;   /* as the user wrote it; NULL: our own */
    char *repo_digest; /* HOST/NAME@DIGEST, or NULL */
    struct digest id;  /* of its configuration */
    struct buf config; /* JSON */
    struct release_layer *layers;
    size_t layer_count;
};
void release_base_free(struct release_base *b);
#define AUTO_RELEASE_BASE CLEANUP(release_base_free)

/*
 * Takes the image that `reference` names into the store, by any transport of image_load() but
 * `dir:`. Every digest is verified. One without ENTRYPOINT, or of another machine, is refused.
 * The caller frees *out, which is untouched on failure.
 */
int release_base_load(struct store *s, const char *reference, const struct image_options *options,
                      struct release_base *out, struct error *err);
/*
 * Makes our own: one layer with the program `shell_path` as RELEASE_SHELL_PATH, the directories
 * that it and nitro-cli need, and nothing else. Equal programs and times (`mtime`) give equal
 * bytes.
 */
int release_base_make(struct store *s, const char *shell_path, const char *arch, int64_t mtime,
                      struct release_base *out, struct error *err);

/* RFC 3339 of a time in seconds since 1970, as `created` wants it; years end with 9999. */
#define RELEASE_TIME_SIZE 32
const char *release_time(int64_t seconds, char out[RELEASE_TIME_SIZE]);

#endif
