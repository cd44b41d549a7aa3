/*
 * A directory as an image (`dir:ROOTFS`): one layer with everything in it, and the configuration
 * beside it. Times are those of `dir:` images, so that equal directories give equal images.
 */
#ifndef CAPSULE_OCI_PACK_H
#define CAPSULE_OCI_PACK_H

#include "oci/content.h"
#include "oci/image.h"

/* An image that can be sent; valid as long as this is open. */
struct packed_image {
    struct content_image image;
    struct content_blob layer;
    struct buf manifest, config;
    int fd;     /* of the layer */
    char *name; /* of the directory */
};
#define PACKED_IMAGE_NONE ((struct packed_image){.fd = -1})
void packed_image_close(struct packed_image *p);
#define AUTO_PACKED_IMAGE CLEANUP(packed_image_close)

/* True for `dir:ROOTFS`. */
bool image_is_dir(const char *reference);
/*
 * Makes an image of `dir:ROOTFS`. The configuration object is taken as it is, known to us or not;
 * its labels become annotations of the manifest, too. The layer lies compressed in $TMPDIR until
 * the caller closes *out, which is untouched on failure.
 */
int pack_dir(const char *reference, const struct image_options *options, struct packed_image *out,
             struct error *err);

#endif
