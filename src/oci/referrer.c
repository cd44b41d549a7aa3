/*
 * Artifacts about an image (OCI distribution-spec, "Pushing Manifests with Subject"): where the
 * registry keeps no list of them, the list is an index under a tag that is made of the digest.
 */
#include "oci/push.h"

#include "base/log.h"
#include "oci/manifest.h"
#include "oci/manifest_write.h"
#include "oci/push_priv.h"
#include "oci/referrer_list.h"

#include <jansson.h>
#include <stdio.h>

#define ROUNDS_MAX 3 /* of adding to the list, while others overwrite it */

/* ---- the list ---- */

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

static int put_index(struct registry *r, const char *tag, const json_t *index, struct error *err)
{
    AUTO_FREE char *text = oci_json_text(index);
    struct content_blob b = {.media_type = OCI_INDEX_TYPE};

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
    json_t *index = referrer_index(r, tag, err);
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

    referrer_tag(subject, tag);
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
    entry = oci_artifact_entry_new(&artifact->manifest, manifest);
    rc = add(r, &subject, entry, err);
    json_decref(entry);
    return rc;
}

int registry_push_referrer(const char *where, const struct content_image *artifact,
                           const struct image_options *options, struct error *err)
{
    AUTO_REFERENCE struct reference ref = {0};
    AUTO_REGISTRY struct registry r = {0};
    json_t *manifest = oci_artifact_read(&artifact->manifest, err);
    int rc = -1;

    if (manifest && push_open(where, artifact, options, &ref, &r, err) == 0)
        rc = push(&r, artifact, manifest, err);
    json_decref(manifest);
    return rc < 0 ? error_wrap(err, "pushing what belongs to %s", where) : 0;
}
