#include "oci/artifact.h"

#include "codec/json.h"

#define MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define EMPTY_TYPE    "application/vnd.oci.empty.v1+json"
#define EMPTY         "{}"
#define MANIFEST_MAX  ((size_t)8 << 10)

void artifact_free(struct artifact *a)
{
    buf_free(&a->manifest);
}

static void put(struct json_writer *w, const char *key, const char *text)
{
    json_put_key(w, key);
    json_put_cstr(w, text);
}

static void put_descriptor(struct json_writer *w, const struct content_blob *b)
{
    char text[DIGEST_TEXT_MAX];

    json_put_object(w);
    put(w, "mediaType", b->media_type);
    put(w, "digest", digest_text(&b->digest, text));
    json_put_key(w, "size");
    json_put_uint(w, b->size);
    json_put_object_end(w);
}

static void put_manifest(struct json_writer *w, const struct artifact *a,
                         const struct content_blob *subject)
{
    json_put_object(w);
    json_put_key(w, "schemaVersion");
    json_put_uint(w, 2);
    put(w, "mediaType", MANIFEST_TYPE);
    put(w, "artifactType", a->layer.media_type);
    json_put_key(w, "config");
    put_descriptor(w, &a->image.config);
    json_put_key(w, "layers");
    json_put_array(w);
    put_descriptor(w, &a->layer);
    json_put_array_end(w);
    json_put_key(w, "subject");
    put_descriptor(w, subject);
    json_put_object_end(w);
}

int artifact_make(struct artifact *out, const char *type, struct slice document,
                  const struct content_blob *subject, struct error *err)
{
    struct content_image *im = &out->image;
    struct json_writer w = {.out = &out->manifest};

    *out = (struct artifact){.manifest = BUF(MANIFEST_MAX), .layer.media_type = type};
    *im = (struct content_image){.manifest.media_type = MANIFEST_TYPE,
                                 .config.media_type = EMPTY_TYPE,
                                 .layers = &out->layer,
                                 .layer_count = 1};
    content_add_bytes(&im->config, slice_str(EMPTY));
    content_add_bytes(&out->layer, document);
    if (content_measure(&im->config, err) < 0 || content_measure(&out->layer, err) < 0)
        return -1;
    put_manifest(&w, out, subject);
    if (w.failed)
        return error_set(err, ERR_LIMIT, "an artifact's manifest of more than %zu bytes",
                         MANIFEST_MAX);
    content_add_bytes(&im->manifest, buf_slice(&out->manifest));
    return content_measure(&im->manifest, err);
}
