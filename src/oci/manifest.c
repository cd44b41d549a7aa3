#include "oci/manifest.h"

#include "base/log.h"
#include "oci/manifest_write.h"

#include <jansson.h>
#include <stdio.h>

#define NEST_MAX   4
#define CHOICE_MAX 1024

static const struct {
    const char *type;
    enum media media;
} media_types[] = {
    {"application/vnd.oci.image.index.v1+json", MEDIA_INDEX},
    {"application/vnd.docker.distribution.manifest.list.v2+json", MEDIA_INDEX},
    {"application/vnd.oci.image.manifest.v1+json", MEDIA_MANIFEST},
    {"application/vnd.docker.distribution.manifest.v2+json", MEDIA_MANIFEST},
    {"application/vnd.oci.image.config.v1+json", MEDIA_CONFIG},
    {"application/vnd.docker.container.image.v1+json", MEDIA_CONFIG},
    {"application/vnd.oci.image.layer.v1.tar", MEDIA_LAYER},
    {"application/vnd.oci.image.layer.v1.tar+gzip", MEDIA_LAYER},
    {"application/vnd.oci.image.layer.v1.tar+zstd", MEDIA_LAYER},
    {"application/vnd.docker.image.rootfs.diff.tar", MEDIA_LAYER},
    {"application/vnd.docker.image.rootfs.diff.tar.gzip", MEDIA_LAYER},
    {"application/vnd.docker.image.rootfs.diff.tar.zstd", MEDIA_LAYER},
};

enum media media_of(const char *type)
{
    for (size_t i = 0; i < ARRAY_LEN(media_types); i++)
        if (strcmp(type, media_types[i].type) == 0)
            return media_types[i].media;
    if (strstr(type, ".nondistributable.") || strstr(type, ".rootfs.foreign."))
        return MEDIA_LAYER_FOREIGN;
    return strstr(type, "+encrypted") ? MEDIA_LAYER_ENCRYPTED : MEDIA_OTHER;
}

const char *media_name(const char *type)
{
    for (size_t i = 0; i < ARRAY_LEN(media_types); i++)
        if (strcmp(type, media_types[i].type) == 0)
            return media_types[i].type;
    return NULL;
}

int oci_descriptor_read(const json_t *o, struct descriptor *d, struct error *err)
{
    const char *digest = oci_json_str(o, "digest"), *type = oci_json_str(o, "mediaType");
    const json_t *size = json_object_get(o, "size");

    if (!digest || !json_is_integer(size) || json_integer_value(size) < 0)
        return error_set(err, ERR_INVALID, "a descriptor without digest and size");
    d->media_type = type ? type : "";
    d->size = (uint64_t)json_integer_value(size);
    return digest_parse(slice_str(digest), &d->digest, err);
}

static json_t *read_json_blob(const struct blob_source *src, const struct descriptor *d,
                              struct buf *text, struct error *err)
{
    AUTO_BLOB struct blob b = BLOB_NONE;

    buf_clear(text);
    if (src->open(src->arg, d, &b, err) < 0 || blob_read(&b, &d->digest, text, err) < 0)
        return NULL;
    return oci_json_parse(buf_slice(text), b.name, err);
}

/* ---- which manifest ---- */

static const char *ref_name(const json_t *descriptor)
{
    return oci_json_str(json_object_get(descriptor, "annotations"), OCI_REF_NAME);
}

/* A name may be a tag alone or "name:tag" (containerd writes the whole name elsewhere). */
static bool tag_matches(const json_t *descriptor, const char *tag)
{
    const char *name = ref_name(descriptor);

    return name && strcmp(name, tag) == 0;
}

/* True, and the words for an error message, when the descriptor says for which machine it is. */
static bool platform_of(const json_t *descriptor, const char **os, const char **arch)
{
    const json_t *p = json_object_get(descriptor, "platform");

    *os = oci_json_str(p, "os");
    *arch = oci_json_str(p, "architecture");
    return *os && *arch;
}

static bool is_image(const json_t *descriptor)
{
    const char *type = oci_json_str(descriptor, "mediaType");
    enum media m = type ? media_of(type) : MEDIA_OTHER;
    const char *os, *arch;

    if (m != MEDIA_INDEX && m != MEDIA_MANIFEST)
        return false;
    /* BuildKit lists its attestations as manifests for the platform unknown/unknown. */
    return !(platform_of(descriptor, &os, &arch) && strcmp(os, "unknown") == 0) &&
           !oci_json_str(descriptor, "artifactType");
}

/* What there is, for messages: tags, or platforms. */
static void list_choices(const json_t *manifests, bool tags, struct buf *out)
{
    json_t *m;
    size_t i;

    json_array_foreach (manifests, i, m) {
        const char *os, *arch, *name = ref_name(m);
        const char *sep = out->len ? ", " : "";

        if (tags && name && buf_printf(out, "%s%.100s", sep, name) < 0)
            return;
        if (!tags && is_image(m) && platform_of(m, &os, &arch) &&
            buf_printf(out, "%s%.40s/%.40s", sep, os, arch) < 0)
            return;
    }
}

static int no_such_tag(const json_t *manifests, const char *tag, struct error *err)
{
    AUTO_BUF struct buf names = BUF(300);

    list_choices(manifests, true, &names);
    error_set(err, ERR_NOT_FOUND, "no image with the tag %.100s in it", tag);
    if (names.len)
        error_hint(err, "there are: %s", buf_cstr(&names));
    return -1;
}

static int no_platform(const json_t *manifests, const struct image_options *options,
                       struct error *err)
{
    AUTO_BUF struct buf names = BUF(300);

    list_choices(manifests, false, &names);
    return error_set(err, ERR_UNSUPPORTED, "no image for linux/%s in it%s%s", options->arch,
                     names.len ? "; there are: " : "", buf_cstr(&names));
}

static int ambiguous(const json_t *manifests, struct error *err)
{
    AUTO_BUF struct buf names = BUF(300);

    list_choices(manifests, true, &names);
    error_set(err, ERR_USAGE, "holds several images");
    return error_hint(err, "add :TAG to the path; there are: %s", buf_cstr(&names));
}

/* One descriptor of an index: by tag if there is one, then by platform. Borrowed; NULL with err. */
static const json_t *choose(const json_t *index, const char *tag,
                            const struct image_options *options, struct error *err)
{
    const json_t *manifests = json_object_get(index, "manifests");
    const json_t *fits = NULL;
    bool doubtful = false; /* one that fits does not say for which machine it is */
    const char *os, *arch;
    size_t i, count = 0, fit_count = 0;
    json_t *m;

    if (!json_is_array(manifests) || json_array_size(manifests) > CHOICE_MAX) {
        error_set(err, ERR_INVALID, "an image index needs a list of at most %d manifests",
                  CHOICE_MAX);
        return NULL;
    }
    json_array_foreach (manifests, i, m) {
        bool told;

        if (!is_image(m) || (tag && !tag_matches(m, tag)))
            continue;
        count++;
        told = platform_of(m, &os, &arch);
        if (told && (strcmp(os, "linux") != 0 || strcmp(arch, options->arch) != 0))
            continue;
        fit_count++;
        doubtful = doubtful || !told || (!tag && ref_name(m));
        if (!fits)
            fits = m;
    }
    /* Of several variants of one platform the first is the best (image-index.md). */
    if (fit_count == 1 || (fit_count > 1 && !doubtful))
        return fits;
    if (count == 0 && tag)
        no_such_tag(manifests, tag, err);
    else if (count == 0)
        error_set(err, ERR_INVALID, "no image in it");
    else if (fit_count == 0)
        no_platform(manifests, options, err);
    else
        ambiguous(manifests, err);
    return NULL;
}

/*
 * Follows an index down to an image manifest, whose bytes `text` gets. The caller json_decref()s;
 * NULL with err.
 */
static json_t *find_manifest(const struct blob_source *src, const json_t *top, const char *tag,
                             const struct image_options *options, struct buf *text,
                             struct error *err)
{
    json_t *held = NULL;

    for (int depth = 0; depth < NEST_MAX; depth++) {
        const json_t *chosen = choose(held ? held : top, depth == 0 ? tag : NULL, options, err);
        struct descriptor d;
        json_t *next = NULL;
        bool last = false;

        if (chosen && oci_descriptor_read(chosen, &d, err) == 0) {
            last = media_of(d.media_type) == MEDIA_MANIFEST;
            next = read_json_blob(src, &d, text, err);
        }
        json_decref(held);
        if (!next || last)
            return next;
        held = next;
    }
    json_decref(held);
    error_set(err, ERR_INVALID, "image indexes inside one another too deep");
    return NULL;
}

/* ---- the image ---- */

static int check_layer_type(const char *type, struct error *err)
{
    switch (media_of(type)) {
    case MEDIA_LAYER:
        return 0;
    case MEDIA_LAYER_FOREIGN:
        return error_set(err, ERR_UNSUPPORTED, "a layer that is only to be had elsewhere (%.100s)",
                         type);
    case MEDIA_LAYER_ENCRYPTED:
        return error_set(err, ERR_UNSUPPORTED, "an encrypted layer (%.100s)", type);
    default:
        return error_set(err, ERR_UNSUPPORTED, "a layer of unknown media type %.100s", type);
    }
}

static int read_config(const struct blob_source *src, const json_t *manifest,
                       const struct image_options *options, struct image *out, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    AUTO_BLOB struct blob b = BLOB_NONE;
    struct descriptor d;

    if (oci_descriptor_read(json_object_get(manifest, "config"), &d, err) < 0)
        return error_wrap(err, "the manifest's config");
    if (media_of(d.media_type) != MEDIA_CONFIG)
        return error_set(err, ERR_UNSUPPORTED, "not a container image but an artifact (%.100s)",
                         d.media_type);
    if (src->open(src->arg, &d, &b, err) < 0 || blob_read(&b, &d.digest, &text, err) < 0 ||
        image_take_config(out, buf_slice(&text), options, err) < 0)
        return -1;
    out->id = d.digest; /* by the algorithm that the image was named with */
    return 0;
}

static int apply_layers(const struct blob_source *src, const struct descriptor *layers,
                        const struct image_options *options, struct image *out, struct error *err)
{
    for (size_t i = 0; i < out->config.diff_id_count; i++) {
        AUTO_BLOB struct blob b = BLOB_NONE;

        if (src->open(src->arg, &layers[i], &b, err) < 0 ||
            image_take_layer(out, &b, &layers[i].digest, &out->config.diff_ids[i], options, err) <
                0)
            return -1;
        log_debug("image", "layer taken in", kv_str("digest", b.name), kv_uint("bytes", b.size));
    }
    return 0;
}

static int read_layers(const struct blob_source *src, const json_t *manifest,
                       const struct image_options *options, struct image *out, struct error *err)
{
    const json_t *list = json_object_get(manifest, "layers");
    size_t i, count = out->config.diff_id_count;
    AUTO_FREE struct descriptor *layers = xcalloc(count, sizeof(*layers));
    json_t *o;

    if (!json_is_array(list) || json_array_size(list) != count)
        return error_set(err, ERR_INVALID, "the manifest has %zu layers, the configuration %zu",
                         json_array_size(list), count);
    json_array_foreach (list, i, o)
        if (oci_descriptor_read(o, &layers[i], err) < 0 ||
            check_layer_type(layers[i].media_type, err) < 0)
            return error_wrap(err, "layer %zu", i + 1);
    if (src->prepare && src->prepare(src->arg, layers, count, err) < 0)
        return -1;
    return apply_layers(src, layers, options, out, err);
}

int image_from_manifest(const struct blob_source *src, const json_t *manifest, struct slice text,
                        const struct image_options *options, struct image *out, struct error *err)
{
    const struct image_sink *sink = out->sink;

    if (sink && sink->manifest && sink->manifest(sink->arg, text, err) < 0)
        return -1;
    if (read_config(src, manifest, options, out, err) < 0 ||
        read_layers(src, manifest, options, out, err) < 0)
        return -1;
    return sink && sink->more ? sink->more(sink->arg, src, err) : 0;
}

int image_from_index(const struct blob_source *src, const json_t *index, const char *tag,
                     const struct image_options *options, struct image *out, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    json_t *manifest = find_manifest(src, index, tag, options, &text, err);
    int rc =
        manifest ? image_from_manifest(src, manifest, buf_slice(&text), options, out, err) : -1;

    json_decref(manifest);
    return rc;
}
