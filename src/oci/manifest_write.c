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
