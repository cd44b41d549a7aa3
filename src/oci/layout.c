/*
 * `oci:DIR[:TAG]` and `oci-archive:FILE[:TAG]`: OCI image layouts (OCI image-spec image-layout.md).
 */
#include "oci/archive_index.h"
#include "oci/manifest.h"
#include "oci/manifest_write.h"
#include "oci/referrer_list.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>

#define LAYOUT_ENTRIES_MAX 1024

struct layout {
    int dirfd; /* or */
    struct archive_index *archive;
    const char *name;
    const json_t *index; /* its index.json, while an image of it is loaded */
};

static int open_file(const struct layout *l, const char *path, struct blob *out, struct error *err)
{
    AUTO_FREE char *name = NULL;

    if (l->archive)
        return archive_find(l->archive, path, out, err);
    name = xasprintf("%s/%s", l->name, path);
    return blob_open_at(l->dirfd, path, name, out, err);
}

static int open_blob(void *arg, const struct descriptor *d, struct blob *out, struct error *err)
{
    const struct layout *l = arg;
    char text[DIGEST_TEXT_MAX];
    AUTO_FREE char *path = NULL;

    /* The names of both algorithms have six letters. */
    digest_text(&d->digest, text);
    path = xasprintf("blobs/%.6s/%s", text, text + 7);
    if (open_file(l, path, out, err) < 0)
        return -1;
    free(out->name);
    out->name = xstrdup(text);
    if (out->size == d->size)
        return 0;
    error_set(err, ERR_INVALID, "blob %s: has %llu bytes, its descriptor says %llu", text,
              (unsigned long long)out->size, (unsigned long long)d->size);
    blob_close(out);
    return -1;
}

/* ---- what refers to what ---- */

/* The document that a descriptor names. NULL with err. */
static json_t *read_json(struct layout *l, const json_t *descriptor, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    AUTO_BLOB struct blob b = BLOB_NONE;
    struct descriptor d;

    if (oci_descriptor_read(descriptor, &d, err) < 0 || open_blob(l, &d, &b, err) < 0 ||
        blob_read(&b, &d.digest, &text, err) < 0)
        return NULL;
    return oci_json_parse(buf_slice(&text), b.name, err);
}

/* Adds the manifests of `index` that say that they are about `subject`. */
static int add_about(struct layout *l, const json_t *index, const char *subject, json_t *list,
                     struct error *err)
{
    const json_t *all = json_object_get(index, "manifests");
    json_t *o;
    size_t i;

    if (json_array_size(all) > LAYOUT_ENTRIES_MAX)
        return error_set(err, ERR_LIMIT, "more than %d manifests in an index", LAYOUT_ENTRIES_MAX);
    json_array_foreach (all, i, o) {
        const char *type = oci_json_str(o, "mediaType"), *about;
        json_t *doc;

        if (!type || media_of(type) != MEDIA_MANIFEST)
            continue;
        doc = read_json(l, o, err);
        if (!doc)
            return -1;
        about = oci_json_str(json_object_get(doc, "subject"), "digest");
        if (about && strcmp(about, subject) == 0)
            json_array_append(list, o);
        json_decref(doc);
    }
    return 0;
}

/*
 * Artifacts stand in index.json itself, or, as in a registry without a list, in an index that is
 * named after the digest.
 */
static int list_referrers(void *arg, const struct digest *subject, json_t *list, struct error *err)
{
    char text[DIGEST_TEXT_MAX], tag[DIGEST_TEXT_MAX];
    struct layout *l = arg;
    json_t *o;
    size_t i;

    digest_text(subject, text);
    referrer_tag(subject, tag);
    if (add_about(l, l->index, text, list, err) < 0)
        return -1;
    json_array_foreach (json_object_get(l->index, "manifests"), i, o) {
        const char *name = oci_json_str(json_object_get(o, "annotations"), OCI_REF_NAME);
        json_t *doc;
        int rc;

        if (!name || strcmp(name, tag) != 0)
            continue;
        doc = read_json(l, o, err);
        rc = doc ? add_about(l, doc, text, list, err) : -1;
        json_decref(doc);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* ---- the image ---- */

static int load(struct layout *l, const char *tag, const struct image_options *options,
                struct image *out, struct error *err)
{
    const struct blob_source src = {.open = open_blob, .arg = l, .referrers = list_referrers};
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    AUTO_BLOB struct blob b = BLOB_NONE;
    json_t *index;
    int rc;

    if (open_file(l, "index.json", &b, err) < 0)
        return error_hint(err, "an OCI image layout has index.json, oci-layout and blobs/ in it");
    if (blob_read(&b, NULL, &text, err) < 0)
        return -1;
    index = oci_json_parse(buf_slice(&text), "index.json", err);
    l->index = index;
    rc = index ? image_from_index(&src, index, tag, options, out, err) : -1;
    json_decref(index);
    return rc;
}

static int load_oci(const char *where, const struct image_options *options, struct image *out,
                    struct error *err)
{
    AUTO_FREE char *path = NULL;
    AUTO_FREE char *tag = NULL;
    AUTO_FD int fd = -1;
    struct layout l;

    if (image_split_tag(where, &path, &tag, err) < 0)
        return -1;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int sys = errno;

        error_sys(err, sys, "opening directory %s", path);
        if (sys == ENOTDIR)
            error_hint(err, "the transport of an image layout in a tar file is oci-archive:FILE");
        return -1;
    }
    l = (struct layout){.dirfd = fd, .name = path};
    return load(&l, tag, options, out, err);
}

static int load_oci_archive(const char *where, const struct image_options *options,
                            struct image *out, struct error *err)
{
    AUTO_FREE char *path = NULL;
    AUTO_FREE char *tag = NULL;
    AUTO_ARCHIVE struct archive_index *a = NULL;
    struct layout l;

    if (image_split_tag(where, &path, &tag, err) < 0)
        return -1;
    a = archive_open(path, options->layer_max, err);
    if (!a)
        return -1;
    l = (struct layout){.dirfd = -1, .archive = a, .name = path};
    return load(&l, tag, options, out, err);
}

const struct transport transport_oci = {"oci", load_oci};
const struct transport transport_oci_archive = {"oci-archive", load_oci_archive};
