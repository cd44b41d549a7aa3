#include "oci/release.h"

#include "base/log.h"
#include "oci/manifest.h"
#include "oci/manifest_write.h"
#include "oci/reference.h"
#include "oci/tar_writer.h"

#include <jansson.h>
#include <stdio.h>

#define PART_MAX ((size_t)4 << 20) /* the manifest and some headers */

/* ---- the layer ---- */

static void put_head(struct buf *out, uint64_t eif_size, int64_t mtime)
{
    tar_put_dir(out, "enclave/", 0755, mtime);
    tar_put_file(out, &RELEASE_EIF_PATH[1], 0644, eif_size, mtime);
}

static int put_tail(struct buf *out, uint64_t eif_size, struct slice manifest, int64_t mtime,
                    struct error *err)
{
    struct slice pad = tar_padding(eif_size);

    if (buf_append(out, pad.ptr, pad.len) < 0)
        abort();
    tar_put_file(out, &RELEASE_MANIFEST_PATH[1], 0644, manifest.len, mtime);
    pad = tar_padding(manifest.len);
    if (buf_append(out, manifest.ptr, manifest.len) < 0 || buf_append(out, pad.ptr, pad.len) < 0 ||
        buf_append(out, tar_end().ptr, tar_end().len) < 0)
        return error_set(err, ERR_LIMIT, "the manifest has more than %zu bytes", out->max);
    return 0;
}

static struct content_blob layer_of(struct slice head, const struct blob *eif, struct slice tail)
{
    struct content_blob layer = {.media_type = OCI_LAYER_TYPE};

    content_add_bytes(&layer, head);
    content_add_file(&layer, eif->fd, eif->offset, eif->size);
    content_add_bytes(&layer, tail);
    return layer;
}

/* ---- configuration and manifest ---- */

/* A member that must be an object or list; one is put there when it is missing or null. */
static json_t *member(json_t *object, const char *key, json_t *fresh)
{
    json_t *v = json_object_get(object, key);

    if (!v || json_is_null(v)) {
        json_object_set_new(object, key, fresh);
        return fresh;
    }
    json_decref(fresh);
    return v;
}

static void set_labels(json_t *object, const struct release_input *in)
{
    for (size_t i = 0; i < in->label_count; i++)
        json_object_set_new(object, in->labels[i].key, json_string(in->labels[i].value));
}

/*
 * The base's configuration with one layer more. Whatever else it says stays, known to us or not.
 * A history that does not tell of every layer, as some tools leave it, is left alone.
 */
static json_t *make_config(const struct release_input *in, const struct digest *layer,
                           struct error *err)
{
    json_t *doc = oci_json_parse(buf_slice(&in->base->config), "the base's configuration", err);
    char created[RELEASE_TIME_SIZE], diff_id[DIGEST_TEXT_MAX];
    json_t *labels, *history;

    if (!doc)
        return NULL;
    release_time(in->mtime, created);
    json_object_set_new(doc, "created", json_string(created));
    labels = member(member(doc, "config", json_object()), "Labels", json_object());
    if (!json_is_object(labels)) {
        json_decref(doc);
        error_set(err, ERR_INVALID, "the base's configuration: Labels: must be an object");
        return NULL;
    }
    set_labels(labels, in);
    json_array_append_new(member(json_object_get(doc, "rootfs"), "diff_ids", json_array()),
                          json_string(digest_text(layer, diff_id)));
    history = json_object_get(doc, "history");
    if (json_array_size(history) > 0)
        json_array_append_new(history, json_pack("{s:s,s:s}", "created", created, "created_by",
                                                 "capsule-cli build: EIF and manifest"));
    return doc;
}

/* The digest in "HOST/NAME@DIGEST". */
static const char *digest_part(const char *repo_digest)
{
    const char *at = repo_digest ? strrchr(repo_digest, '@') : NULL;

    return at ? at + 1 : NULL;
}

/*
 * A reference without its transport; NULL for a path, which means nothing on another machine. The
 * digest, when it is pinned, has an annotation of its own.
 */
static const char *registry_name(const char *reference)
{
    static const char *const prefixes[] = {"docker://", "docker-daemon:"};

    if (!reference || !image_names_transport(reference))
        return reference;
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (strncmp(reference, prefixes[i], strlen(prefixes[i])) == 0)
            return reference + strlen(prefixes[i]);
    return NULL;
}

static json_t *make_manifest(const struct release_input *in, const struct stored_blob *config,
                             const struct content_blob *layer)
{
    json_t *layers = json_array(), *annotations = json_object();
    const char *base_digest = digest_part(in->base->repo_digest);
    const char *base_name = registry_name(in->base->reference);
    char created[RELEASE_TIME_SIZE];

    for (size_t i = 0; i < in->base->layer_count; i++)
        json_array_append_new(layers, oci_descriptor_new(in->base->layers[i].media_type,
                                                         &in->base->layers[i].blob.digest,
                                                         in->base->layers[i].blob.size));
    json_array_append_new(layers, oci_descriptor_new(OCI_LAYER_TYPE, &layer->digest, layer->size));
    set_labels(annotations, in);
    json_object_set_new(annotations, "org.opencontainers.image.created",
                        json_string(release_time(in->mtime, created)));
    if (base_name)
        json_object_set_new(annotations, "org.opencontainers.image.base.name",
                            json_stringn(base_name, strcspn(base_name, "@")));
    if (base_digest)
        json_object_set_new(annotations, "org.opencontainers.image.base.digest",
                            json_string(base_digest));
    return json_pack("{s:i,s:s,s:o,s:o,s:o}", "schemaVersion", 2, "mediaType", OCI_MANIFEST_TYPE,
                     "config", oci_descriptor_new(OCI_CONFIG_TYPE, &config->digest, config->size),
                     "layers", layers, "annotations", annotations);
}

/* Stores a document and drops it. */
static int put_json(struct store *s, json_t *doc, struct stored_blob *out, struct error *err)
{
    AUTO_FREE char *text = oci_json_text(doc);

    json_decref(doc);
    if (strlen(text) > BLOB_JSON_MAX)
        return error_set(err, ERR_LIMIT, "the release image's JSON has more than %zu bytes",
                         BLOB_JSON_MAX);
    return store_put(s, slice_str(text), out, err);
}

int release_store(struct store *s, const char *name, const struct release_input *in,
                  struct stored_image *out, struct error *err)
{
    AUTO_BUF struct buf head = BUF(PART_MAX), tail = BUF(PART_MAX);
    struct stored_image image = {.eif = in->eif};
    struct stored_blob kept[RELEASE_BASE_LAYERS_MAX + 1];
    AUTO_BLOB struct blob eif = BLOB_NONE;
    struct content_blob layer;
    size_t n = in->base->layer_count;
    json_t *config;

    put_head(&head, in->eif.size, in->mtime);
    if (put_tail(&tail, in->eif.size, in->manifest, in->mtime, err) < 0 ||
        store_open_blob(s, &in->eif, &eif, err) < 0)
        return -1;
    layer = layer_of(buf_slice(&head), &eif, buf_slice(&tail));
    if (content_measure(&layer, err) < 0)
        return -1;
    config = make_config(in, &layer.digest, err);
    if (!config || put_json(s, config, &kept[n], err) < 0 ||
        put_json(s, make_manifest(in, &kept[n], &layer), &image.release, err) < 0 ||
        store_put(s, in->manifest, &image.manifest, err) < 0 ||
        store_put(s, buf_slice(&head), &image.head, err) < 0 ||
        store_put(s, buf_slice(&tail), &image.tail, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        kept[i] = in->base->layers[i].blob;
    image.release_id = kept[n].digest;
    if (store_add(s, name, &image, kept, n + 1, err) < 0)
        return -1;
    *out = image;
    return 0;
}

/* ---- out of the store again ---- */

void release_close(struct release *r)
{
    for (size_t i = 0; i < r->base_count; i++)
        blob_close(&r->base_layers[i]);
    free(r->base_layers);
    blob_close(&r->eif);
    buf_free(&r->manifest);
    buf_free(&r->config);
    buf_free(&r->head);
    buf_free(&r->tail);
    free(r->image.layers);
    free(r->base_source);
    *r = (struct release){.eif = BLOB_NONE};
}

static int read_part(struct store *s, const struct stored_blob *which, size_t max, struct buf *out,
                     struct error *err)
{
    AUTO_BLOB struct blob b = BLOB_NONE;

    *out = BUF(max);
    if (store_open_blob(s, which, &b, err) < 0)
        return -1;
    return blob_read(&b, &which->digest, out, err);
}

static struct content_blob memory_blob(const char *type, const struct digest *digest,
                                       const struct buf *bytes)
{
    struct content_blob b = {.media_type = type, .digest = *digest};

    content_add_bytes(&b, buf_slice(bytes));
    return b;
}

/* The strings of a descriptor live as long as its JSON; of types only ours are passed on. */
static const char *static_layer_type(const char *type)
{
    static const char *const types[] = {OCI_LAYER_TYPE, OCI_LAYER_TYPE "+gzip",
                                        OCI_LAYER_TYPE "+zstd"};

    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strcmp(type, types[i]) == 0)
            return types[i];
    return NULL;
}

/* The repository that the base came from, where its name says which. The caller frees it. */
static char *base_source(const json_t *doc)
{
    const char *name =
        oci_json_str(json_object_get(doc, "annotations"), "org.opencontainers.image.base.name");
    AUTO_REFERENCE struct reference ref = {0};

    if (!name || reference_parse(slice_str(name), &ref, NULL) < 0 || !ref.host)
        return NULL;
    return xasprintf("%s/%s", ref.host, ref.name);
}

/* All layers but the topmost, from the store. */
static int open_base_layers(struct store *s, const struct descriptor *layers, struct release *r,
                            struct error *err)
{
    for (size_t i = 0; i + 1 < r->image.layer_count; i++) {
        struct content_blob *to = &r->image.layers[i];
        const struct stored_blob blob = {layers[i].digest, layers[i].size};

        to->media_type = static_layer_type(layers[i].media_type);
        to->digest = layers[i].digest;
        to->source = r->base_source;
        if (!to->media_type)
            return error_set(err, ERR_INVALID, "a layer of unknown media type %.100s",
                             layers[i].media_type);
        if (store_open_blob(s, &blob, &r->base_layers[i], err) < 0)
            return -1;
        r->base_count++;
        content_add_file(to, r->base_layers[i].fd, 0, r->base_layers[i].size);
    }
    return 0;
}

static int open_parts(struct store *s, const struct stored_image *image, const json_t *doc,
                      struct release *r, struct error *err)
{
    const json_t *list = json_object_get(doc, "layers");
    size_t count = json_array_size(list);
    AUTO_FREE struct descriptor *layers = xcalloc(count, sizeof(*layers));
    struct descriptor config;

    if (count == 0 || count > RELEASE_BASE_LAYERS_MAX + 1)
        return error_set(err, ERR_INVALID, "it must have 1 to %d layers",
                         RELEASE_BASE_LAYERS_MAX + 1);
    if (oci_descriptor_read(json_object_get(doc, "config"), &config, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (oci_descriptor_read(json_array_get(list, i), &layers[i], err) < 0)
            return -1;
    r->image.layers = xcalloc(count, sizeof(*r->image.layers));
    r->base_layers = xcalloc(count, sizeof(*r->base_layers));
    r->image.layer_count = count;
    r->base_source = base_source(doc);
    if (open_base_layers(s, layers, r, err) < 0 ||
        read_part(s, &(struct stored_blob){config.digest, config.size}, BLOB_JSON_MAX, &r->config,
                  err) < 0 ||
        read_part(s, &image->head, PART_MAX, &r->head, err) < 0 ||
        read_part(s, &image->tail, PART_MAX, &r->tail, err) < 0 ||
        store_open_blob(s, &image->eif, &r->eif, err) < 0)
        return -1;
    r->image.layers[count - 1] = layer_of(buf_slice(&r->head), &r->eif, buf_slice(&r->tail));
    r->image.layers[count - 1].digest = layers[count - 1].digest;
    r->image.config = memory_blob(OCI_CONFIG_TYPE, &config.digest, &r->config);
    r->image.manifest = memory_blob(OCI_MANIFEST_TYPE, &image->release.digest, &r->manifest);
    if (r->image.layers[count - 1].size != layers[count - 1].size)
        return error_set(err, ERR_INVALID,
                         "the size of its topmost layer is not the sum of its "
                         "parts");
    return 0;
}

int release_open(struct store *s, const struct stored_image *image, struct release *out,
                 struct error *err)
{
    json_t *doc;
    int rc;

    *out = (struct release){.eif = BLOB_NONE};
    if (image->release.size == 0) {
        error_set(err, ERR_NOT_FOUND, "%s: has no release image in the image store", image->name);
        return error_hint(err, "it was built by an earlier version; build it again");
    }
    if (read_part(s, &image->release, BLOB_JSON_MAX, &out->manifest, err) < 0)
        return -1;
    doc = oci_json_parse(buf_slice(&out->manifest), "its manifest", err);
    rc = doc ? open_parts(s, image, doc, out, err) : -1;
    json_decref(doc);
    return rc < 0 ? error_wrap(err, "the release image of %s", image->name) : 0;
}
