#include "oci/carry.h"

#include "base/log.h"
#include "oci/manifest.h"
#include "oci/manifest_write.h"
#include "oci/reference.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>

void carried_free(struct carried *c)
{
    for (size_t i = 0; i < c->fd_count; i++)
        fd_close(&c->fds[i]);
    for (size_t i = 0; i < c->referrer_count; i++)
        free(c->referrers[i].layers);
    fd_close(&c->file);
    free(c->fds);
    free(c->referrers);
    free(c->image.layers);
    free(c->name);
    free(c->source);
    buf_free(&c->manifest);
    buf_free(&c->config);
    *c = (struct carried){.file = -1};
}

bool carry_names(const char *reference)
{
    static const char *const names[] = {"docker://", "oci:", "oci-archive:"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strncmp(reference, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* ---- blobs ---- */

static int check_digest(const struct content_blob *b, const struct digest *want, const char *what,
                        struct error *err)
{
    return digest_equal(&b->digest, want) ? 0 : digest_mismatch(what, want, &b->digest, err);
}

/* Layouts and registries name blobs by this one; so does what we write. */
static int check_sha256(const struct digest *d, struct error *err)
{
    return d->alg == HASH_SHA256 ? 0
                                 : error_set(err, ERR_UNSUPPORTED,
                                             "only what is named by a sha256 digest can be copied");
}

static int take_bytes(struct buf *to, struct slice bytes, struct error *err)
{
    return buf_append(to, bytes.ptr, bytes.len) == 0
               ? 0
               : error_set(err, ERR_LIMIT, "a document of more than %zu bytes", to->max);
}

/* Its digest has to be known before anything refers to it. */
static int take_manifest(void *arg, struct slice json, struct error *err)
{
    struct carried *c = arg;

    if (take_bytes(&c->manifest, json, err) < 0)
        return -1;
    content_add_bytes(&c->image.manifest, buf_slice(&c->manifest));
    return content_measure(&c->image.manifest, err);
}

static int take_config(void *arg, struct slice json, struct error *err)
{
    struct carried *c = arg;

    return take_bytes(&c->config, json, err);
}

/* What a pull has put into a file of its own. */
static bool is_spare(const struct blob *b)
{
    struct stat st;

    return b->offset == 0 && fstat(b->fd, &st) == 0 && st.st_nlink == 0 &&
           (uint64_t)st.st_size == b->size;
}

static int take_layer(void *arg, const struct blob *b, const struct digest *want,
                      const struct digest *diff_id, uint64_t max, struct error *err)
{
    struct carried *c = arg;
    struct content_image *im = &c->image;
    int fd = fcntl(b->fd, F_DUPFD_CLOEXEC, 0);
    struct content_blob *to;

    (void)diff_id; /* the layer stays as it is packed */
    (void)max;
    if (fd < 0)
        return error_sys(err, errno, "keeping layer %s", b->name);
    c->fds = xreallocarray(c->fds, c->fd_count + 1, sizeof(*c->fds));
    c->fds[c->fd_count++] = fd;
    im->layers = xreallocarray(im->layers, im->layer_count + 1, sizeof(*im->layers));
    to = &im->layers[im->layer_count++];
    *to = (struct content_blob){.source = c->source};
    content_add_file(to, fd, b->offset, b->size);
    to->pieces[0].spare = is_spare(b);
    if (!want)
        return error_set(err, ERR_INTERNAL, "layer %s has no digest", b->name);
    if (check_sha256(want, err) < 0 || content_measure(to, err) < 0)
        return -1;
    return check_digest(to, want, b->name, err);
}

/* ---- artifacts ---- */

/* Room behind what the file has. */
static int reserve(struct carried *c, uint64_t size, struct error *err)
{
    if (c->file < 0)
        c->file = file_temp(err);
    if (c->file < 0)
        return -1;
    return size <= CARRY_BYTES_MAX - c->file_size
               ? 0
               : error_set(err, ERR_LIMIT, "its artifacts have more than %" PRIu64 " bytes",
                           CARRY_BYTES_MAX);
}

/* A blob of an artifact into the file, verified. */
static int take_blob(struct carried *c, const struct blob_source *src, const struct descriptor *d,
                     struct content_blob *to, struct error *err)
{
    AUTO_BLOB struct blob b = BLOB_NONE;
    struct content_blob from = {0};

    if (check_sha256(&d->digest, err) < 0 || reserve(c, d->size, err) < 0 ||
        src->open(src->arg, d, &b, err) < 0)
        return -1;
    content_add_file(&from, b.fd, b.offset, b.size);
    if (lseek(c->file, (off_t)c->file_size, SEEK_SET) < 0)
        return error_sys(err, errno, "seeking in a copy of an artifact");
    if (content_write(&from, c->file, "a copy of an artifact", err) < 0)
        return -1;
    *to = (struct content_blob){.media_type = "application/octet-stream", .source = c->source};
    content_add_file(to, c->file, c->file_size, b.size);
    c->file_size += b.size;
    return content_measure(to, err) < 0 ? -1 : check_digest(to, &d->digest, b.name, err);
}

static int take_parts(struct carried *c, const struct blob_source *src, const json_t *doc,
                      struct content_image *out, struct error *err)
{
    const json_t *list = json_object_get(doc, "layers");
    size_t count = json_array_size(list);
    struct descriptor d;

    if (count > CARRY_BLOBS_MAX)
        return error_set(err, ERR_LIMIT, "more than %d layers", CARRY_BLOBS_MAX);
    if (oci_descriptor_read(json_object_get(doc, "config"), &d, err) < 0 ||
        take_blob(c, src, &d, &out->config, err) < 0)
        return -1;
    out->layers = xcalloc(count ? count : 1, sizeof(*out->layers));
    for (; out->layer_count < count; out->layer_count++)
        if (oci_descriptor_read(json_array_get(list, out->layer_count), &d, err) < 0 ||
            take_blob(c, src, &d, &out->layers[out->layer_count], err) < 0)
            return -1;
    return 0;
}

/* The registry's word for what an artifact is about is not enough. */
static int check_subject(const json_t *doc, const struct digest *subject, struct error *err)
{
    const char *about = oci_json_str(json_object_get(doc, "subject"), "digest");
    char text[DIGEST_TEXT_MAX];

    if (about && strcmp(about, digest_text(subject, text)) == 0)
        return 0;
    return error_set(err, ERR_INVALID, "it is listed as about %s, and is about %.150s",
                     digest_text(subject, text), about ? about : "nothing");
}

static int take_artifact(struct carried *c, const struct blob_source *src,
                         const struct descriptor *d, const struct digest *subject,
                         struct error *err)
{
    struct content_image *out = &c->referrers[c->referrer_count];
    json_t *doc;
    int rc;

    *out = (struct content_image){0};
    if (d->size > BLOB_JSON_MAX)
        return error_set(err, ERR_LIMIT, "a manifest of more than %zu bytes", BLOB_JSON_MAX);
    if (take_blob(c, src, d, &out->manifest, err) < 0)
        return -1;
    out->manifest.media_type = media_name(d->media_type);
    doc = oci_artifact_read(&out->manifest, err);
    if (!doc)
        return -1;
    rc = check_subject(doc, subject, err);
    if (rc == 0)
        rc = take_parts(c, src, doc, out, err);
    json_decref(doc);
    if (rc < 0)
        free(out->layers);
    else
        c->referrer_count++;
    return rc;
}

static bool has_artifact(const struct carried *c, const struct digest *d)
{
    for (size_t i = 0; i < c->referrer_count; i++)
        if (digest_equal(&c->referrers[i].manifest.digest, d))
            return true;
    return digest_equal(&c->image.manifest.digest, d);
}

static int take_listed(struct carried *c, const struct blob_source *src, const json_t *entry,
                       const struct digest *subject, struct error *err)
{
    char text[DIGEST_TEXT_MAX];
    struct descriptor d;

    if (oci_descriptor_read(entry, &d, err) < 0)
        return -1;
    if (has_artifact(c, &d.digest))
        return 0;
    digest_text(&d.digest, text);
    if (media_of(d.media_type) != MEDIA_MANIFEST) {
        log_warn("image", "left behind, as it is no artifact with a manifest",
                 kv_str("digest", text));
        return 0;
    }
    if (c->referrer_count == CARRY_REFERRERS_MAX)
        return error_set(err, ERR_LIMIT, "more than %d artifacts are about the image",
                         CARRY_REFERRERS_MAX);
    return take_artifact(c, src, &d, subject, err) < 0 ? error_wrap(err, "artifact %s", text) : 0;
}

static int take_about(struct carried *c, const struct blob_source *src,
                      const struct digest *subject, struct error *err)
{
    json_t *list = json_array(), *o;
    int rc = src->referrers(src->arg, subject, list, err);
    size_t i;

    json_array_foreach (list, i, o)
        if (rc == 0)
            rc = take_listed(c, src, o, subject, err);
    json_decref(list);
    return rc;
}

/* Round by round what is about the image, what is about that, and so on; no one comes twice. */
static int take_referrers(void *arg, const struct blob_source *src, struct error *err)
{
    struct carried *c = arg;
    struct digest subject = c->image.manifest.digest;

    if (!src->referrers)
        return 0;
    c->referrers = xcalloc(CARRY_REFERRERS_MAX, sizeof(*c->referrers));
    for (size_t i = 0;; i++) {
        if (take_about(c, src, &subject, err) < 0)
            return error_wrap(err, "what refers to the image (--no-referrers leaves it out)");
        if (i == c->referrer_count)
            return 0;
        subject = c->referrers[i].manifest.digest;
    }
}

/* ---- the image ---- */

/* What the manifest says of the parts, of which the digests are known to be right. */
static int finish(struct carried *c, const json_t *doc, struct error *err)
{
    const json_t *list = json_object_get(doc, "layers");
    const char *type = oci_json_str(doc, "mediaType");
    struct content_image *im = &c->image;
    struct descriptor d;

    im->manifest.media_type = media_name(type ? type : OCI_MANIFEST_TYPE);
    if (!im->manifest.media_type || media_of(im->manifest.media_type) != MEDIA_MANIFEST)
        return error_set(err, ERR_UNSUPPORTED, "a manifest of unknown media type %.100s", type);
    if (oci_descriptor_read(json_object_get(doc, "config"), &d, err) < 0)
        return -1;
    im->config.media_type = media_name(d.media_type);
    for (size_t i = 0; i < im->layer_count; i++) {
        if (oci_descriptor_read(json_array_get(list, i), &d, err) < 0)
            return -1;
        im->layers[i].media_type = media_name(d.media_type);
    }
    im->config.source = c->source;
    content_add_bytes(&im->config, buf_slice(&c->config));
    if (content_measure(&im->config, err) < 0)
        return -1;
    return 0;
}

/* Names of the place an image of a registry is in, for mounts, and for what has no name else. */
static int name_source(const char *reference, struct carried *c, struct error *err)
{
    AUTO_REFERENCE struct reference ref = {0};
    const char *where;

    if (!image_in_registry(reference, &where))
        return 0;
    if (reference_parse(slice_str(where), &ref, err) < 0)
        return -1;
    if (ref.host) {
        c->source = xasprintf("%s/%s", ref.host, ref.name);
        c->name = xasprintf("%s:%s", c->source, ref.tag ? ref.tag : "latest");
    }
    return 0;
}

int carry_load(const char *reference, bool referrers, const struct image_options *options,
               struct carried *out, struct error *err)
{
    const struct image_sink sink = {.config = take_config,
                                    .layer = take_layer,
                                    .arg = out,
                                    .manifest = take_manifest,
                                    .more = referrers ? take_referrers : NULL};
    AUTO_IMAGE struct image im = {0};
    json_t *doc;
    int rc;

    *out =
        (struct carried){.file = -1, .manifest = BUF(BLOB_JSON_MAX), .config = BUF(BLOB_JSON_MAX)};
    if (name_source(reference, out, err) < 0 ||
        image_load_parts(reference, options, &sink, &im, err) < 0)
        return -1;
    doc = oci_json_parse(buf_slice(&out->manifest), "the image's manifest", err);
    rc = doc ? finish(out, doc, err) : -1;
    json_decref(doc);
    return rc < 0 ? error_wrap(err, "image %.300s", reference) : 0;
}
