/*
 * `oci:DIR[:TAG]` and `oci-archive:FILE[:TAG]`: OCI image layouts (OCI image-spec image-layout.md).
 */
#include "oci/archive_index.h"
#include "oci/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>

struct layout {
    int dirfd; /* or */
    struct archive_index *archive;
    const char *name;
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

static int load(struct layout *l, const char *tag, const struct image_options *options,
                struct image *out, struct error *err)
{
    const struct blob_source src = {.open = open_blob, .arg = l};
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    AUTO_BLOB struct blob b = BLOB_NONE;
    json_t *index;
    int rc;

    if (open_file(l, "index.json", &b, err) < 0)
        return error_hint(err, "an OCI image layout has index.json, oci-layout and blobs/ in it");
    if (blob_read(&b, NULL, &text, err) < 0)
        return -1;
    index = oci_json_parse(buf_slice(&text), "index.json", err);
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
