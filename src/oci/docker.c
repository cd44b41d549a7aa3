/*
 * `docker-archive:FILE[:TAG]`: what `docker save` and `podman save` write - manifest.json (Docker
 * image-spec v1.2), a configuration and one tar for each layer.
 */
#include "base/log.h"
#include "base/text.h"
#include "oci/archive_index.h"
#include "oci/image.h"

#include <jansson.h>
#include <stdio.h>

#define IMAGES_MAX 4096

static bool has_tag(const json_t *image, const char *tag)
{
    AUTO_FREE char *full = NULL;
    const char *slash = strrchr(tag, '/');
    json_t *name;
    size_t i;

    full = strchr(slash ? slash : tag, ':') ? xstrdup(tag) : xasprintf("%s:latest", tag);
    json_array_foreach (json_object_get(image, "RepoTags"), i, name) {
        const char *text = json_string_value(name);
        size_t len = text ? strlen(text) : 0;

        if (!text)
            continue;
        if (strcmp(text, full) == 0)
            return true;
        /* Engines write the name in full, "localhost/app:1" where the user says "app:1". */
        if (len > strlen(full) && text[len - strlen(full) - 1] == '/' &&
            strcmp(text + len - strlen(full), full) == 0)
            return true;
    }
    return false;
}

static int no_such_image(const json_t *images, const char *tag, struct error *err)
{
    AUTO_BUF struct buf names = BUF(300);
    json_t *image, *name;
    size_t i, j;

    json_array_foreach (images, i, image)
        json_array_foreach (json_object_get(image, "RepoTags"), j, name)
            if (json_is_string(name) &&
                buf_printf(&names, "%s%.100s", names.len ? ", " : "", json_string_value(name)) < 0)
                break;
    if (tag)
        error_set(err, ERR_NOT_FOUND, "no image %.100s in it", tag);
    else
        error_set(err, ERR_USAGE, "holds %zu images", json_array_size(images));
    return error_hint(err, "add :NAME:TAG or :@NUMBER to the path; there are: %s",
                      names.len ? buf_cstr(&names) : "images without a name");
}

/* Borrowed from `images`; NULL with err. */
static const json_t *choose(const json_t *images, const char *tag, struct error *err)
{
    json_t *image;
    uint64_t n;
    size_t i;

    if (!json_is_array(images) || json_array_size(images) == 0 ||
        json_array_size(images) > IMAGES_MAX) {
        error_set(err, ERR_INVALID, "manifest.json: must be a list of 1 to %d images", IMAGES_MAX);
        return NULL;
    }
    if (!tag && json_array_size(images) == 1)
        return json_array_get(images, 0);
    if (tag && tag[0] == '@') {
        if (parse_u64(slice_str(tag + 1), IMAGES_MAX, &n) == 0 && n < json_array_size(images))
            return json_array_get(images, (size_t)n);
    } else if (tag) {
        json_array_foreach (images, i, image)
            if (has_tag(image, tag))
                return image;
    }
    no_such_image(images, tag, err);
    return NULL;
}

/*
 * Members are named after their digest: "HEX.json" and "blobs/sha256/HEX". True when so. (Layers of
 * the old form are called "ID/layer.tar", where ID is no digest of the content; "HEX.tar" is
 * podman's name by diff ID.)
 */
static bool digest_of_name(const char *path, const char *suffix, struct digest *out)
{
    static const char prefix[] = "blobs/sha256/";
    size_t len = strlen(path), cut = strlen(suffix);
    const char *hex = path;

    if (strncmp(path, prefix, strlen(prefix)) == 0) {
        hex += strlen(prefix);
        len -= strlen(prefix);
    } else if (len > cut && cut && strcmp(path + len - cut, suffix) == 0) {
        len -= cut;
    } else {
        return false;
    }
    *out = (struct digest){.alg = HASH_SHA256};
    return hex_decode(slice_of(hex, len), out->bytes, SHA256_LEN) == 0;
}

static json_t *read_manifest(const struct archive_index *a, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    AUTO_BLOB struct blob b = BLOB_NONE;

    if (archive_find(a, "manifest.json", &b, err) < 0) {
        error_hint(err, "this is not what `docker save` writes; for an OCI layout in a tar file "
                        "use oci-archive:FILE");
        return NULL;
    }
    if (blob_read(&b, NULL, &text, err) < 0)
        return NULL;
    return oci_json_parse(buf_slice(&text), "manifest.json", err);
}

static int read_config(const struct archive_index *a, const json_t *image,
                       const struct image_options *options, struct image *out, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    AUTO_BLOB struct blob b = BLOB_NONE;
    const char *path = oci_json_str(image, "Config");
    struct digest want;

    if (!path)
        return error_set(err, ERR_INVALID, "manifest.json: an image without Config");
    if (archive_find(a, path, &b, err) < 0 ||
        blob_read(&b, digest_of_name(path, ".json", &want) ? &want : NULL, &text, err) < 0)
        return -1;
    return image_take_config(out, buf_slice(&text), options, err);
}

static int apply_layers(const struct archive_index *a, const json_t *image,
                        const struct image_options *options, struct image *out, struct error *err)
{
    const json_t *layers = json_object_get(image, "Layers");
    size_t i, count = json_array_size(layers);
    json_t *o;

    if (count != out->config.diff_id_count)
        return error_set(err, ERR_INVALID, "manifest.json has %zu layers, the configuration %zu",
                         count, out->config.diff_id_count);
    json_array_foreach (layers, i, o) {
        AUTO_BLOB struct blob b = BLOB_NONE;
        const char *path = json_string_value(o);
        struct digest want;

        if (!path)
            return error_set(err, ERR_INVALID, "manifest.json: Layers must be a list of paths");
        if (archive_find(a, path, &b, err) < 0)
            return -1;
        if (image_take_layer(out, &b, digest_of_name(path, "", &want) ? &want : NULL,
                             &out->config.diff_ids[i], options, err) < 0)
            return -1;
        log_debug("image", "layer taken in", kv_str("path", path), kv_uint("bytes", b.size));
    }
    return 0;
}

int docker_archive_load(const struct archive_index *a, const char *tag,
                        const struct image_options *options, struct image *out, struct error *err)
{
    json_t *images = read_manifest(a, err);
    const json_t *image;
    int rc = -1;

    if (!images)
        return -1;
    image = choose(images, tag, err);
    if (image && read_config(a, image, options, out, err) == 0)
        rc = apply_layers(a, image, options, out, err);
    json_decref(images);
    return rc;
}

static int load_docker_archive(const char *where, const struct image_options *options,
                               struct image *out, struct error *err)
{
    AUTO_FREE char *path = NULL;
    AUTO_FREE char *tag = NULL;
    AUTO_ARCHIVE struct archive_index *a = NULL;

    if (image_split_tag(where, &path, &tag, err) < 0)
        return -1;
    a = archive_open(path, options->layer_max, err);
    return a ? docker_archive_load(a, tag, options, out, err) : -1;
}

const struct transport transport_docker_archive = {"docker-archive", load_docker_archive};
