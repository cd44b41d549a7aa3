/*
 * Artifacts about an image (OCI distribution-spec, "Pushing Manifests with Subject"): where the
 * registry keeps no list of them, the list is an index under a tag that is made of the digest.
 */
#include "oci/push.h"

#include "base/log.h"
#include "oci/manifest.h"
#include "oci/push_priv.h"

#include <jansson.h>
#include <stdio.h>

#define INDEX_TYPE "application/vnd.oci.image.index.v1+json"
#define ROUNDS_MAX 3 /* of adding to the list, while others overwrite it */

/* ---- the list ---- */

static json_t *new_index(void)
{
    return json_pack("{s:i, s:s, s:[]}", "schemaVersion", 2, "mediaType", INDEX_TYPE, "manifests");
}

/* The index under `tag`, an empty one when there is none. NULL with err. */
static json_t *get_index(struct registry *r, const char *tag, struct error *err)
{
    AUTO_BUF struct buf text = BUF(REFERRERS_MAX);
    struct fetch f = {.accept = INDEX_TYPE, .text = &text, .fd = -1, .size = FETCH_SIZE_UNKNOWN};
    struct error why = {0};
    json_t *doc = NULL;

    f.url = registry_url(r, "manifests", tag);
    f.what = xasprintf("list of referrers %s", tag);
    if (fetch_all(r, &f, 1, NULL, &why) == 0)
        doc = oci_json_parse(buf_slice(&text), f.what, err);
    else if (why.kind == ERR_NOT_FOUND)
        doc = new_index();
    else if (err)
        *err = why;
    if (doc && !json_is_array(json_object_get(doc, "manifests"))) {
        error_set(err, ERR_INVALID, "%s: not an image index, so nothing is added to it", f.what);
        json_decref(doc);
        doc = NULL;
    }
    fetch_free(&f);
    return doc;
}

static bool lists(const json_t *index, const char *digest)
{
    const json_t *list = json_object_get(index, "manifests");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *one = oci_json_str(json_array_get(list, i), "digest");

        if (one && strcmp(one, digest) == 0)
            return true;
    }
    return false;
}

/* What the list says of an artifact: its type, else that of its configuration; its annotations. */
static json_t *descriptor_of(const json_t *manifest, const struct content_blob *b)
{
    const char *type = oci_json_str(manifest, "artifactType");
    json_t *d, *annotations = json_object_get(manifest, "annotations");
    char text[DIGEST_TEXT_MAX];

    if (!type || !type[0])
        type = oci_json_str(json_object_get(manifest, "config"), "mediaType");
    d = json_pack("{s:s, s:s, s:I, s:s*}", "mediaType", b->media_type, "digest",
                  digest_text(&b->digest, text), "size", (json_int_t)b->size, "artifactType", type);
    if (annotations)
        json_object_set(d, "annotations", annotations);
    return d;
}

static int put_index(struct registry *r, const char *tag, const json_t *index, struct error *err)
{
    AUTO_FREE char *text = json_dumps(index, JSON_COMPACT);
    struct content_blob b = {.media_type = INDEX_TYPE};

    if (!text)
        return error_set(err, ERR_INTERNAL, "list of referrers %s: cannot be written", tag);
    if (strlen(text) > REFERRERS_MAX)
        return error_set(err, ERR_LIMIT, "list of referrers %s: more than %zu bytes", tag,
                         REFERRERS_MAX);
    content_add_bytes(&b, slice_str(text));
    if (content_measure(&b, err) < 0)
        return -1;
    return push_manifest(r, &b, tag, NULL, err);
}

/* Adds `entry` to the list unless it is there. 1 when it was. */
static int add_once(struct registry *r, const char *tag, json_t *entry, struct error *err)
{
    json_t *index = get_index(r, tag, err);
    int rc;

    if (!index)
        return -1;
    if (lists(index, oci_json_str(entry, "digest")))
        rc = 1;
    else
        rc = json_array_append(json_object_get(index, "manifests"), entry) == 0
                 ? put_index(r, tag, index, err)
                 : error_set(err, ERR_INTERNAL, "a list of referrers cannot be made");
    json_decref(index);
    return rc;
}

/* Another pusher may overwrite the list between our reading and writing, so it is read again. */
static int add(struct registry *r, const struct digest *subject, json_t *entry, struct error *err)
{
    char tag[DIGEST_TEXT_MAX];
    int rc = 0;

    digest_text(subject, tag);
    *strchr(tag, ':') = '-';
    log_info("image", "the registry keeps no list of referrers; adding to its index",
             kv_str("tag", tag));
    for (int i = 0; i <= ROUNDS_MAX && rc == 0; i++)
        rc = add_once(r, tag, entry, err);
    if (rc == 0) {
        error_set(err, ERR_NET, "list of referrers %s: others overwrite it", tag);
        return error_hint(err, "push again when they have finished");
    }
    return rc < 0 ? -1 : 0;
}

/* ---- the artifact ---- */

static int push(struct registry *r, const struct content_image *artifact, const json_t *manifest,
                struct error *err)
{
    const char *told = oci_json_str(json_object_get(manifest, "subject"), "digest");
    AUTO_FREE char *listed = NULL;
    char text[DIGEST_TEXT_MAX];
    struct digest subject;
    json_t *entry;
    int rc;

    if (!told)
        return error_set(err, ERR_INVALID, "the artifact does not say what it is about");
    if (digest_parse(slice_str(told), &subject, err) < 0 || push_blobs(r, artifact, err) < 0 ||
        push_manifest(r, &artifact->manifest, digest_text(&artifact->manifest.digest, text),
                      &listed, err) < 0)
        return -1;
    if (strcmp(listed, told) == 0)
        return 0;
    entry = descriptor_of(manifest, &artifact->manifest);
    rc = add(r, &subject, entry, err);
    json_decref(entry);
    return rc;
}

int registry_push_referrer(const char *where, const struct content_image *artifact,
                           const struct image_options *options, struct error *err)
{
    AUTO_REFERENCE struct reference ref = {0};
    AUTO_REGISTRY struct registry r = {0};
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    json_t *manifest = NULL;
    uint8_t *to = buf_reserve(&text, artifact->manifest.size);
    int rc = -1;

    if (!to)
        error_set(err, ERR_LIMIT, "a manifest of more than %zu bytes", BLOB_JSON_MAX);
    else if (content_read(&artifact->manifest, 0, to, artifact->manifest.size, err) >= 0) {
        text.len = artifact->manifest.size;
        manifest = oci_json_parse(buf_slice(&text), "the artifact's manifest", err);
    }
    if (manifest && push_open(where, artifact, options, &ref, &r, err) == 0)
        rc = push(&r, artifact, manifest, err);
    json_decref(manifest);
    return rc < 0 ? error_wrap(err, "pushing what belongs to %s", where) : 0;
}
