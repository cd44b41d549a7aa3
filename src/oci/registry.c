/*
 * `docker://REFERENCE`: an image in a registry (OCI distribution-spec, "Pull"). Manifests are read
 * into memory; each layer lies in an unnamed temporary file, from where it is applied, or which
 * becomes a file of a layout.
 */
#include "oci/registry.h"

#include "base/log.h"
#include "oci/fetch.h"
#include "oci/manifest.h"
#include "oci/progress.h"
#include "oci/reference.h"
#include "oci/referrer_list.h"

#include <jansson.h>
#include <stdio.h>

#define MANIFEST_TYPES                                                                             \
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "        \
    "application/vnd.docker.distribution.manifest.list.v2+json, "                                  \
    "application/vnd.docker.distribution.manifest.v2+json"

struct pull {
    struct registry registry;
    uint64_t size_max;  /* of all layers, as they are sent */
    uint64_t small_max; /* of another blob */
    struct blob *ready; /* layers, an unnamed file each; named by digest */
    struct digest *digests;
    size_t count;
};

/* One thing as an unnamed file, which is how blobs are passed. */
static int get_small(struct pull *p, const struct descriptor *d, struct blob *out,
                     struct error *err)
{
    bool manifest =
        media_of(d->media_type) == MEDIA_MANIFEST || media_of(d->media_type) == MEDIA_INDEX;
    char text[DIGEST_TEXT_MAX];
    struct fetch f = {.accept = manifest ? MANIFEST_TYPES : NULL, .size = d->size};
    int rc;

    digest_text(&d->digest, text);
    if (d->size > (manifest ? BLOB_JSON_MAX : p->small_max))
        return error_set(err, ERR_LIMIT, "%s: %llu bytes, more than the limit of %llu", text,
                         (unsigned long long)d->size,
                         (unsigned long long)(manifest ? BLOB_JSON_MAX : p->small_max));
    f.fd = file_temp(err);
    if (f.fd < 0)
        return -1;
    *out = (struct blob){.fd = f.fd, .own = true, .size = d->size, .name = xstrdup(text)};
    f.url = registry_url(&p->registry, manifest ? "manifests" : "blobs", text);
    f.what = xasprintf("%s %s", manifest ? "manifest" : "blob", text);
    rc = fetch_all(&p->registry, &f, 1, NULL, err);
    fetch_free(&f);
    if (rc < 0)
        blob_close(out);
    return rc;
}

static int open_blob(void *arg, const struct descriptor *d, struct blob *out, struct error *err)
{
    struct pull *p = arg;

    for (size_t i = 0; i < p->count; i++) {
        if (!digest_equal(&p->digests[i], &d->digest) || p->ready[i].size != d->size)
            continue;
        *out = p->ready[i];
        out->name = xstrdup(p->ready[i].name);
        return 0;
    }
    return get_small(p, d, out, err);
}

/* Files for all layers, and what to fetch; a layer that comes twice comes once. */
static int plan(struct pull *p, const struct descriptor *layers, size_t count, struct fetch *f,
                struct error *err)
{
    uint64_t total = 0;

    for (size_t i = 0; i < count; i++) {
        char text[DIGEST_TEXT_MAX];
        size_t n = p->count;
        bool twice = false;

        for (size_t j = 0; j < n; j++)
            twice = twice || (digest_equal(&p->digests[j], &layers[i].digest) &&
                              p->ready[j].size == layers[i].size);
        if (twice)
            continue;
        if (layers[i].size > p->size_max - total) {
            error_set(err, ERR_LIMIT, "its layers have more than %llu bytes",
                      (unsigned long long)p->size_max);
            return error_hint(err, "set CAPSULE_IMAGE_MAX to a larger number of bytes if the image "
                                   "is to be trusted");
        }
        digest_text(&layers[i].digest, text);
        p->digests[n] = layers[i].digest;
        p->ready[n] =
            (struct blob){.fd = file_temp(err), .size = layers[i].size, .name = xstrdup(text)};
        p->count++;
        if (p->ready[n].fd < 0)
            return -1;
        f[n] = (struct fetch){.url = registry_url(&p->registry, "blobs", text),
                              .what = xasprintf("layer %s", text),
                              .fd = p->ready[n].fd,
                              .size = layers[i].size};
        total += layers[i].size;
    }
    return 0;
}

static int get_layers(void *arg, const struct descriptor *layers, size_t count, struct error *err)
{
    AUTO_FREE struct fetch *f = xcalloc(count, sizeof(*f));
    struct progress shown = {0};
    const struct fetch_progress progress = {progress_show_fetches, progress_pulled, &shown};
    struct pull *p = arg;
    int rc;

    p->ready = xcalloc(count, sizeof(*p->ready));
    p->digests = xcalloc(count, sizeof(*p->digests));
    rc = plan(p, layers, count, f, err);
    if (rc == 0)
        rc = fetch_all(&p->registry, f, p->count, &progress, err);
    progress_end(&shown);
    for (size_t i = 0; i < count; i++)
        fetch_free(&f[i]);
    return rc;
}

/* Whoever asks for these looks at the sizes of what is in them. */
static int list_referrers(void *arg, const struct digest *subject, json_t *list, struct error *err)
{
    struct pull *p = arg;

    p->small_max = p->size_max;
    return referrer_list(&p->registry, subject, list, err);
}

static void pull_free(struct pull *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->ready[i].name);
        fd_close(&p->ready[i].fd);
    }
    free(p->ready);
    free(p->digests);
    registry_close(&p->registry);
}

/* The document that the reference names, its bytes and its digest. NULL with err. */
static json_t *get_top(struct pull *p, const struct reference *ref, char **type, struct buf *text,
                       struct digest *digest, struct error *err)
{
    char name[DIGEST_TEXT_MAX];
    const char *which = ref->pinned ? digest_text(&ref->digest, name) : ref->tag;
    struct fetch f = {.accept = MANIFEST_TYPES, .text = text, .fd = -1};
    json_t *doc = NULL;
    int rc;

    f.size = FETCH_SIZE_UNKNOWN;
    f.url = registry_url(&p->registry, "manifests", which);
    f.what = xasprintf("manifest %s", which);
    rc = fetch_all(&p->registry, &f, 1, NULL, err);
    *digest = (struct digest){.alg = ref->pinned ? ref->digest.alg : HASH_SHA256};
    hash_once(digest->alg, buf_slice(text), digest->bytes);
    if (rc == 0 && ref->pinned && !digest_equal(digest, &ref->digest))
        rc = digest_mismatch(f.what, &ref->digest, digest, err);
    if (rc == 0)
        doc = oci_json_parse(buf_slice(text), f.what, err);
    *type = f.content_type ? xstrndup(f.content_type, strcspn(f.content_type, "; ")) : xstrdup("");
    fetch_free(&f);
    return doc;
}

/*
 * Index or manifest. What it holds counts, as Content-Type is not under the digest; a document that
 * could be both is refused (distribution-spec and CVE-2021-41190).
 */
static int load_top(struct pull *p, const json_t *top, struct slice text, const char *type,
                    const struct image_options *options, struct image *out, struct error *err)
{
    const struct blob_source src = {
        .open = open_blob, .prepare = get_layers, .arg = p, .referrers = list_referrers};
    const char *told = oci_json_str(top, "mediaType");
    bool index = json_object_get(top, "manifests") != NULL;
    bool manifest = json_object_get(top, "layers") || json_object_get(top, "config");
    enum media want = index ? MEDIA_INDEX : MEDIA_MANIFEST;

    if (index == manifest || (told && media_of(told) != want)) {
        error_set(err, ERR_UNSUPPORTED, "the registry has neither an image nor an index (%.100s)",
                  told ? told : type);
        return error_hint(err, "images of Docker's schema 1 must be pushed again by a newer tool");
    }
    return index ? image_from_index(&src, top, NULL, options, out, err)
                 : image_from_manifest(&src, top, text, options, out, err);
}

static int pull(const struct reference *ref, const char *host, const struct image_options *options,
                struct image *out, struct error *err)
{
    CLEANUP(pull_free)
    struct pull p = {.size_max = options->layer_max, .small_max = BLOB_JSON_MAX};
    AUTO_BUF struct buf bytes = BUF(BLOB_JSON_MAX);
    AUTO_FREE char *type = NULL;
    char text[DIGEST_TEXT_MAX];
    struct digest digest;
    json_t *top;
    int rc;

    if (registry_open(&p.registry, host, ref->name, options, err) < 0)
        return -1;
    top = get_top(&p, ref, &type, &bytes, &digest, err);
    if (!top)
        return -1;
    log_info("image", "pulling", kv_str("from", host), kv_str("name", ref->name),
             kv_str("digest", digest_text(&digest, text)));
    rc = load_top(&p, top, buf_slice(&bytes), type, options, out, err);
    json_decref(top);
    if (rc == 0)
        out->repo_digest = xasprintf("%s/%s@%s", host, ref->name, text);
    return rc;
}

int registry_load(const char *where, const struct image_options *options, struct image *out,
                  struct error *err)
{
    AUTO_REFERENCE struct reference ref = {0};
    AUTO_FREE char *host = NULL;

    if (reference_parse(slice_str(where), &ref, err) < 0)
        return -1;
    host = ref.host ? xstrdup(ref.host) : registry_default_host(err);
    if (!host)
        return -1;
    if (pull(&ref, host, options, out, err) < 0)
        return error_wrap(err, "registry %s", host);
    return 0;
}

static int load_docker(const char *where, const struct image_options *options, struct image *out,
                       struct error *err)
{
    if (strncmp(where, "//", 2) != 0) {
        error_set(err, ERR_USAGE, "two slashes follow docker:");
        return error_hint(err, "write docker://HOST/NAME:TAG");
    }
    return registry_load(where + 2, options, out, err);
}

const struct transport transport_docker = {"docker", load_docker};
