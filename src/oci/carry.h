/*
 * An image of a registry or a layout on its way to another place, byte for byte: the manifest stays
 * what it is, and so do its digest and all that refers to it - bills of materials, provenance,
 * signatures - which comes along, with what refers to that in turn.
 */
#ifndef CAPSULE_OCI_CARRY_H
#define CAPSULE_OCI_CARRY_H

#include "oci/content.h"
#include "oci/image.h"

#define CARRY_REFERRERS_MAX 64
#define CARRY_BLOBS_MAX     64                  /* of one artifact */
#define CARRY_BYTES_MAX     ((uint64_t)1 << 30) /* of all artifacts */

struct carried {
    struct content_image image;
    struct content_image *referrers; /* each behind what it is about */
    size_t referrer_count;
    char *name; /* HOST/NAME:TAG of one that came from a registry, else NULL */
    /* What the pieces point to. */
    struct buf manifest, config;
    char *source; /* "HOST/NAME" of the registry, or NULL */
    int *fds;     /* with the layers */
    size_t fd_count;
    int file; /* with the artifacts */
    uint64_t file_size;
};
void carried_free(struct carried *c);
#define AUTO_CARRIED CLEANUP(carried_free)

/* True for what names a place that has manifests: docker://, oci: and oci-archive:. */
bool carry_names(const char *reference);

/*
 * Takes the image that `reference` names (image_load(); of an index, that for options->arch). Every
 * digest is verified, and with `referrers` that each artifact is about what it came for:
 * ERR_INVALID when it is not, ERR_LIMIT beyond the limits above. The caller frees *out, also on
 * failure.
 */
int carry_load(const char *reference, bool referrers, const struct image_options *options,
               struct carried *out, struct error *err);

#endif
