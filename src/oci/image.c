#include "oci/image.h"

#include "base/text.h"
#include "oci/layer.h"
#include "oci/registry.h"
#include "oci/unpack.h"

#include <stdlib.h>

static const struct transport *const transports[] = {
    &transport_dir,           &transport_oci,    &transport_oci_archive, &transport_docker_archive,
    &transport_docker_daemon, &transport_docker,
};

/* Names that users of skopeo and podman know, and that this version does not have. */
static const char *const unsupported[] = {"containers-storage:", "ostree:", "sif:", "tarball:"};

int image_options_default(struct image_options *o, struct error *err)
{
    const char *max = getenv("CAPSULE_IMAGE_MAX"), *epoch = getenv("SOURCE_DATE_EPOCH");
    uint64_t bytes, seconds;

    *o = (struct image_options){
        .arch = "amd64", .limits = TREE_LIMITS_DEFAULT, .layer_max = UNPACK_MAX};
    if (epoch && epoch[0]) {
        if (parse_u64(slice_str(epoch), INT64_MAX, &seconds) < 0)
            return error_set(err, ERR_USAGE,
                             "SOURCE_DATE_EPOCH=%.40s: must be a number of seconds since 1970",
                             epoch);
        o->limits.mtime_max = o->dir_mtime = (int64_t)seconds;
    }
    if (!max)
        return 0;
    if (parse_u64(slice_str(max), INT64_MAX, &bytes) < 0 || bytes == 0)
        return error_set(err, ERR_USAGE, "CAPSULE_IMAGE_MAX=%.40s: must be a number of bytes", max);
    o->limits.content_max = o->layer_max = bytes;
    return 0;
}

void image_free(struct image *im)
{
    free(im->reference);
    free(im->repo_digest);
    tree_free(im->tree);
    image_config_free(&im->config);
    *im = (struct image){0};
}

/* Refuses an image for another machine. */
static int check_platform(const struct image_config *c, const struct image_options *options,
                          struct error *err)
{
    const char *os = c->os && c->os[0] ? c->os : "linux";

    if (strcmp(os, "linux") == 0 && c->architecture && strcmp(c->architecture, options->arch) == 0)
        return 0;
    error_set(err, ERR_UNSUPPORTED, "the image is for %.40s/%.40s, not for linux/%s", os,
              c->architecture && c->architecture[0] ? c->architecture : "an unknown machine",
              options->arch);
    return error_hint(err, "get or build the image for linux/%s", options->arch);
}

int image_take_config(struct image *out, struct slice json, const struct image_options *options,
                      struct error *err)
{
    if (image_config_parse(json, "image configuration", &out->config, err) < 0)
        return -1;
    out->id = (struct digest){.alg = HASH_SHA256};
    hash_once(HASH_SHA256, json, out->id.bytes);
    out->has_id = true;
    if (check_platform(&out->config, options, err) < 0)
        return -1;
    return out->sink ? out->sink->config(out->sink->arg, json, err) : 0;
}

int image_take_layer(struct image *out, const struct blob *b, const struct digest *want,
                     const struct digest *diff_id, const struct image_options *options,
                     struct error *err)
{
    if (out->sink)
        return out->sink->layer(out->sink->arg, b, want, diff_id, options->layer_max, err);
    return layer_apply(out->tree, b, want, diff_id, options->layer_max, err);
}

int image_split_tag(const char *where, char **path, char **tag, struct error *err)
{
    const char *colon = strchr(where, ':');

    if (where[0] == '\0' || colon == where)
        return error_set(err, ERR_USAGE, "a path is missing");
    if (colon && colon[1] == '\0')
        return error_set(err, ERR_USAGE, "nothing follows the colon behind the path");
    *path = colon ? xstrndup(where, (size_t)(colon - where)) : xstrdup(where);
    *tag = colon ? xstrdup(colon + 1) : NULL;
    return 0;
}

static int refuse_unsupported(const char *reference, struct error *err)
{
    for (size_t i = 0; i < ARRAY_LEN(unsupported); i++) {
        if (strncmp(reference, unsupported[i], strlen(unsupported[i])) != 0)
            continue;
        error_set(err, ERR_UNSUPPORTED, "the transport %s is not available in this version",
                  unsupported[i]);
        return error_hint(err, "copy the image with docker, podman or skopeo, then use its name, "
                               "oci:DIR, oci-archive:FILE or docker-archive:FILE");
    }
    return 0;
}

/* A bare name: of a local engine, which costs nothing, else of its registry. */
static int load_bare(const char *where, const struct image_options *options, struct image *out,
                     struct error *err)
{
    AUTO_BUF struct buf asked = BUF(1024);
    int rc = options->pull ? 0 : engine_load(where, options, out, &asked, err);

    if (rc != 0)
        return rc < 0 ? -1 : 0;
    if (registry_load(where, options, out, err) == 0)
        return 0;
    if (options->pull)
        return -1;
    if (asked.len)
        return error_wrap(err, "the local engine (%s) does not have it", buf_cstr(&asked));
    return error_wrap(err, "no Docker or podman engine answers on this machine");
}

static const struct transport transport_bare = {"", load_bare};

static const struct transport *find(const char *reference, const char **where)
{
    for (size_t i = 0; i < ARRAY_LEN(transports); i++) {
        size_t len = strlen(transports[i]->name);

        if (strncmp(reference, transports[i]->name, len) == 0 && reference[len] == ':') {
            *where = reference + len + 1;
            return transports[i];
        }
    }
    *where = reference;
    return &transport_bare;
}

bool image_in_registry(const char *reference, const char **where)
{
    const struct transport *t = find(reference, where);

    if (t == &transport_docker && strncmp(*where, "//", 2) == 0)
        *where += 2;
    return t == &transport_docker ||
           (t == &transport_bare && refuse_unsupported(reference, NULL) == 0);
}

bool image_names_transport(const char *reference)
{
    const char *where;

    return find(reference, &where) != &transport_bare || refuse_unsupported(reference, NULL) < 0;
}

static int load(const char *reference, const struct image_options *options,
                const struct image_sink *sink, struct image *out, struct error *err)
{
    AUTO_IMAGE struct image im = {.sink = sink};
    const struct transport *t;
    const char *where;

    if (refuse_unsupported(reference, err) < 0)
        return -1;
    t = find(reference, &where);
    im.reference = xstrdup(reference);
    if (sink && t == &transport_dir) {
        error_set(err, ERR_UNSUPPORTED, "a plain directory has no layers to build on");
        return error_hint(err, "make an image of it first: capsule-cli copy dir:ROOTFS oci:DIR");
    }
    if (!sink) {
        im.tree = tree_new(&options->limits, err);
        if (!im.tree)
            return -1;
    }
    if (t->load(where, options, &im, err) < 0)
        return -1;
    im.sink = NULL;
    *out = im;
    im = (struct image){0};
    return 0;
}

int image_load(const char *reference, const struct image_options *options, struct image *out,
               struct error *err)
{
    if (load(reference, options, NULL, out, err) < 0)
        return error_wrap(err, "image %.300s", reference);
    return 0;
}

int image_load_parts(const char *reference, const struct image_options *options,
                     const struct image_sink *sink, struct image *out, struct error *err)
{
    if (load(reference, options, sink, out, err) < 0)
        return error_wrap(err, "image %.300s", reference);
    return 0;
}
