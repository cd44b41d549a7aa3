#include "oci/pack.h"

#include "oci/dir.h"
#include "oci/layer_write.h"
#include "oci/manifest_write.h"
#include "oci/release_base.h"

#include <jansson.h>
#include <string.h>

#define SCHEME "dir:"

void packed_image_close(struct packed_image *p)
{
    fd_close(&p->fd);
    buf_free(&p->manifest);
    buf_free(&p->config);
    free(p->name);
    *p = PACKED_IMAGE_NONE;
}

bool image_is_dir(const char *reference)
{
    return strncmp(reference, SCHEME, strlen(SCHEME)) == 0;
}

/* The `config` object, whose labels have to be what they become. The caller drops it. */
static json_t *read_config(const char *where, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    AUTO_FREE char *path = dir_config_read(where, &text, err);
    json_t *doc = path ? oci_json_parse(buf_slice(&text), path, err) : NULL;
    json_t *labels = json_object_get(doc, "Labels"), *value;
    const char *key;

    if (!doc)
        return NULL;
    if (labels && !json_is_object(labels) && !json_is_null(labels)) {
        error_set(err, ERR_INVALID, "%s: Labels: must be an object", path);
        goto fail;
    }
    json_object_foreach (labels, key, value) {
        if (!json_is_string(value)) {
            error_set(err, ERR_INVALID, "%s: Labels.%.200s: must be a string", path, key);
            goto fail;
        }
    }
    return doc;
fail:
    json_decref(doc);
    return NULL;
}

static int take_text(json_t *doc, struct buf *out, struct error *err)
{
    AUTO_FREE char *text = oci_json_text(doc);

    json_decref(doc);
    *out = BUF(BLOB_JSON_MAX);
    return buf_append(out, text, strlen(text)) < 0
               ? error_set(err, ERR_LIMIT, "the image's JSON has more than %zu bytes",
                           BLOB_JSON_MAX)
               : 0;
}

static json_t *make_config(json_t *config, const char *arch, const char *created,
                           const struct digest *diff_id)
{
    char text[DIGEST_TEXT_MAX];

    return json_pack("{s:s,s:s,s:s,s:O,s:{s:s,s:[s]},s:[{s:s,s:s}]}", "created", created,
                     "architecture", arch, "os", "linux", "config", config, "rootfs", "type",
                     "layers", "diff_ids", digest_text(diff_id, text), "history", "created",
                     created, "created_by", "capsule-cli copy dir:");
}

static json_t *make_manifest(const json_t *config, const char *created,
                             const struct content_image *image)
{
    const struct content_blob *c = &image->config, *layer = &image->layers[0];
    json_t *annotations = json_deep_copy(json_object_get(config, "Labels"));

    if (!json_is_object(annotations)) {
        json_decref(annotations);
        annotations = json_object();
    }
    json_object_set_new(annotations, "org.opencontainers.image.created", json_string(created));
    return json_pack("{s:i,s:s,s:o,s:[o],s:o}", "schemaVersion", 2, "mediaType", OCI_MANIFEST_TYPE,
                     "config", oci_descriptor_new(c->media_type, &c->digest, c->size), "layers",
                     oci_descriptor_new(layer->media_type, &layer->digest, layer->size),
                     "annotations", annotations);
}

static int blob_of(const char *type, const struct buf *bytes, struct content_blob *out,
                   struct error *err)
{
    *out = (struct content_blob){.media_type = type};
    content_add_bytes(out, buf_slice(bytes));
    return content_measure(out, err);
}

static int assemble(json_t *config, const struct image_options *options,
                    const struct digest *diff_id, struct packed_image *p, struct error *err)
{
    char created[RELEASE_TIME_SIZE];

    release_time(options->dir_mtime, created);
    p->image.layer_count = 1;
    p->image.layers = &p->layer;
    if (take_text(make_config(config, options->arch, created, diff_id), &p->config, err) < 0 ||
        blob_of(OCI_CONFIG_TYPE, &p->config, &p->image.config, err) < 0 ||
        take_text(make_manifest(config, created, &p->image), &p->manifest, err) < 0)
        return -1;
    return blob_of(OCI_MANIFEST_TYPE, &p->manifest, &p->image.manifest, err);
}

/* What the directory itself is called. */
static char *last_name(const char *where)
{
    size_t end = strlen(where), start;

    while (end > 0 && where[end - 1] == '/')
        end--;
    start = end;
    while (start > 0 && where[start - 1] != '/')
        start--;
    return xstrndup(where + start, end - start);
}

int pack_dir(const char *reference, const struct image_options *options, struct packed_image *out,
             struct error *err)
{
    AUTO_PACKED_IMAGE struct packed_image p = PACKED_IMAGE_NONE;
    AUTO_IMAGE struct image im = {0};
    struct digest diff_id;
    uint64_t size;
    json_t *config;
    int rc;

    if (image_load(reference, options, &im, err) < 0)
        return -1;
    p.fd = layer_write(im.tree, &diff_id, &size, err);
    if (p.fd < 0)
        return error_wrap(err, "image %.300s", reference);
    p.layer.media_type = OCI_LAYER_TYPE "+gzip";
    content_add_file(&p.layer, p.fd, 0, size);
    p.name = last_name(reference + strlen(SCHEME));
    config = read_config(reference + strlen(SCHEME), err);
    rc = !config || content_measure(&p.layer, err) < 0
             ? -1
             : assemble(config, options, &diff_id, &p, err);
    json_decref(config);
    if (rc < 0)
        return error_wrap(err, "image %.300s", reference);
    *out = p;
    out->image.layers = &out->layer;
    p = PACKED_IMAGE_NONE;
    return 0;
}
