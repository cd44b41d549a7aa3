#include "oci/manifest_write.h"

#include <jansson.h>

json_t *oci_descriptor_new(const char *media_type, const struct digest *digest, uint64_t size)
{
    char text[DIGEST_TEXT_MAX];

    return json_pack("{s:s,s:s,s:I}", "mediaType", media_type, "digest", digest_text(digest, text),
                     "size", (json_int_t)size);
}

json_t *oci_index_entry_new(const struct content_image *image, const char *name)
{
    json_t *entry = oci_descriptor_new(image->manifest.media_type, &image->manifest.digest,
                                       image->manifest.size);

    if (name)
        json_object_set_new(entry, "annotations", json_pack("{s:s}", OCI_REF_NAME, name));
    return entry;
}

json_t *oci_artifact_read(const struct content_blob *manifest, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    uint8_t *to = manifest->size <= text.max ? buf_reserve(&text, manifest->size) : NULL;

    if (!to) {
        error_set(err, ERR_LIMIT, "a manifest of more than %zu bytes", BLOB_JSON_MAX);
        return NULL;
    }
    if (content_read(manifest, 0, to, manifest->size, err) < 0)
        return NULL;
    text.len = manifest->size;
    return oci_json_parse(buf_slice(&text), "the artifact's manifest", err);
}

json_t *oci_artifact_entry_new(const struct content_blob *b, const json_t *manifest)
{
    const char *type = oci_json_str(manifest, "artifactType");
    json_t *entry = oci_descriptor_new(b->media_type, &b->digest, b->size);
    json_t *annotations = json_object_get(manifest, "annotations");

    if (!type || !type[0])
        type = oci_json_str(json_object_get(manifest, "config"), "mediaType");
    if (type)
        json_object_set_new(entry, "artifactType", json_string(type));
    if (annotations)
        json_object_set(entry, "annotations", annotations);
    return entry;
}

json_t *oci_index_new(void)
{
    return json_pack("{s:i,s:s,s:[]}", "schemaVersion", 2, "mediaType", OCI_INDEX_TYPE,
                     "manifests");
}

char *oci_json_text(const json_t *doc)
{
    char *text = json_dumps(doc, JSON_COMPACT);

    if (!text)
        abort(); /* what we made is JSON; so memory ran out */
    return text;
}
