/*
 * A bill of materials: SPDX 2.3 in JSON (ISO/IEC 5962, spdx-spec v2.3) of the packages of an image.
 */
#ifndef CAPSULE_OCI_SBOM_H
#define CAPSULE_OCI_SBOM_H

#include "oci/image.h"
#include "oci/packages.h"

#define SBOM_MEDIA_TYPE "application/spdx+json"
#define SBOM_MAX        ((size_t)16 << 20)

struct sbom_input {
    const char *name; /* of the image, for people */
    const struct image *image;
    const struct package_list *packages;
    const char *tool_version; /* of capsule-cli */
    int64_t created;          /* SOURCE_DATE_EPOCH, or 0 */
};

/*
 * Appends the document to `out`. Equal inputs give equal bytes: no time but `created`, and a
 * namespace that is made of the document's own digest, and so of the image's. ERR_LIMIT when it
 * does not fit.
 */
int sbom_write(const struct sbom_input *in, struct buf *out, struct error *err);

#endif
