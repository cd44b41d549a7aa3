#include "oci/artifact.h"

#include "oci/manifest_write.h"

#include <jansson.h>

#define EMPTY_TYPE "application/vnd.oci.empty.v1+json"
#define EMPTY      "{}"

void artifact_free(struct artifact *a)
{
    free(a->manifest);
    a->manifest = NULL;
}

static json_t *descriptor(const struct content_blob *b)
{
    return oci_descriptor_new(b->media_type, &b->digest, b->size);
}

int artifact_make(struct artifact *out, const char *type, struct slice document,
                  const struct content_blob *subject, struct error *err)
{
    struct content_image *im = &out->image;
    json_t *doc;

    *out = (struct artifact){.layer.media_type = type};
    *im = (struct content_image){.manifest.media_type = OCI_MANIFEST_TYPE,
                                 .config.media_type = EMPTY_TYPE,
                                 .layers = &out->layer,
                                 .layer_count = 1};
    content_add_bytes(&im->config, slice_str(EMPTY));
    content_add_bytes(&out->layer, document);
    if (content_measure(&im->config, err) < 0 || content_measure(&out->layer, err) < 0)
        return -1;
    doc = json_pack("{s:i,s:s,s:s,s:o,s:[o],s:o}", "schemaVersion", 2, "mediaType",
                    OCI_MANIFEST_TYPE, "artifactType", type, "config", descriptor(&im->config),
                    "layers", descriptor(&out->layer), "subject", descriptor(subject));
    out->manifest = oci_json_text(doc);
    json_decref(doc);
    content_add_bytes(&im->manifest, slice_str(out->manifest));
    return content_measure(&im->manifest, err);
}
