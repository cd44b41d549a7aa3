/* Descriptors and indexes on their way out (OCI image-spec descriptor.md, image-index.md). */
#ifndef CAPSULE_OCI_MANIFEST_WRITE_H
#define CAPSULE_OCI_MANIFEST_WRITE_H

#include "oci/config.h"
#include "oci/content.h"

#define OCI_INDEX_TYPE    "application/vnd.oci.image.index.v1+json"
#define OCI_MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define OCI_CONFIG_TYPE   "application/vnd.oci.image.config.v1+json"
#define OCI_LAYER_TYPE    "application/vnd.oci.image.layer.v1.tar"
#define OCI_REF_NAME      "org.opencontainers.image.ref.name"
/* What the file oci-layout holds (image-layout.md). */
#define OCI_LAYOUT_TEXT "{\"imageLayoutVersion\":\"1.0.0\"}"

/* The caller owns what these return. */
json_t *oci_descriptor_new(const char *media_type, const struct digest *digest,
                           uint64_t size) MUST_USE;
/* Of the image's manifest, named `name` (NULL: not named): its entry in an index. */
json_t *oci_index_entry_new(const struct content_image *image, const char *name) MUST_USE;
/* Reads the manifest of an artifact; NULL with err. */
json_t *oci_artifact_read(const struct content_blob *manifest, struct error *err) MUST_USE;
/* The artifact's entry in a list: its type, else that of its configuration; its annotations. */
json_t *oci_artifact_entry_new(const struct content_blob *b, const json_t *manifest) MUST_USE;
/* An index without entries. */
json_t *oci_index_new(void) MUST_USE;
/* The text of a document made here, compact; members in the order they were set. */
char *oci_json_text(const json_t *doc) MUST_USE;

#endif
