/*
 * Artifacts about an image (OCI image-spec manifest.md, "Guidelines for Artifact Usage"): one layer
 * that is the document, an empty configuration, and the image as `subject`. For
 * registry_push_referrer(), and for layouts.
 */
#ifndef CAPSULE_OCI_ARTIFACT_H
#define CAPSULE_OCI_ARTIFACT_H

#include "oci/content.h"

struct artifact {
    struct content_image image;
    struct content_blob layer;
    char *manifest;
};

/*
 * Makes the artifact of a document; `type` is its media type and the artifact's. `document` is
 * borrowed as long as *out is used, and *out must stay where it is. Equal inputs give equal bytes.
 * The caller frees *out, also on failure.
 */
int artifact_make(struct artifact *out, const char *type, struct slice document,
                  const struct content_blob *subject, struct error *err);
void artifact_free(struct artifact *a);
#define AUTO_ARTIFACT CLEANUP(artifact_free)

#endif
