/*
 * push_image [--insecure] [--referrer] [--from HOST/NAME] LAYOUT TARGET: pushes the only image of
 * an OCI image layout, for tests/e2e/test_push.py. With --referrer it is an artifact about another
 * image; with --from its blobs may be mounted from there.
 */
#include "oci/push.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>

struct made {
    struct content_image image;
    struct buf manifest;
    int fds[CONTENT_LAYERS_MAX + 1];
    size_t fd_count;
};

static int open_blob(struct made *m, int dir, const json_t *descriptor, const char *from,
                     struct content_blob *out, struct error *err)
{
    const char *digest = oci_json_str(descriptor, "digest");
    AUTO_FREE char *path = digest ? xasprintf("blobs/sha256/%s", digest + 7) : NULL;
    AUTO_BLOB struct blob b = BLOB_NONE;

    if (!digest || digest_parse(slice_str(digest), &out->digest, err) < 0 ||
        blob_open_at(dir, path, digest, &b, err) < 0)
        return -1;
    out->media_type = "application/octet-stream";
    out->source = from;
    content_add_file(out, b.fd, b.offset, b.size);
    m->fds[m->fd_count++] = b.fd;
    b.own = false;
    return 0;
}

static json_t *read_json(int dir, const char *path, struct buf *text, struct error *err)
{
    AUTO_BLOB struct blob b = BLOB_NONE;

    if (blob_open_at(dir, path, path, &b, err) < 0 || blob_read(&b, NULL, text, err) < 0)
        return NULL;
    return oci_json_parse(buf_slice(text), path, err);
}

static int open_layers(struct made *m, int dir, const json_t *manifest, const char *from,
                       struct error *err)
{
    const json_t *layers = json_object_get(manifest, "layers");

    m->image.layer_count = json_array_size(layers);
    m->image.layers = xcalloc(m->image.layer_count, sizeof(*m->image.layers));
    if (open_blob(m, dir, json_object_get(manifest, "config"), from, &m->image.config, err) < 0)
        return -1;
    for (size_t i = 0; i < m->image.layer_count; i++)
        if (open_blob(m, dir, json_array_get(layers, i), from, &m->image.layers[i], err) < 0)
            return -1;
    return 0;
}

static int open_image(struct made *m, int dir, const char *from, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    json_t *index = read_json(dir, "index.json", &text, err), *manifest = NULL;
    const json_t *top = json_array_get(json_object_get(index, "manifests"), 0);
    const char *digest = oci_json_str(top, "digest");
    AUTO_FREE char *path = digest ? xasprintf("blobs/sha256/%s", digest + 7) : NULL;
    int rc = -1;

    manifest = path ? read_json(dir, path, &m->manifest, err) : NULL;
    if (manifest && open_layers(m, dir, manifest, from, err) == 0) {
        m->image.manifest.media_type = "application/vnd.oci.image.manifest.v1+json";
        content_add_bytes(&m->image.manifest, buf_slice(&m->manifest));
        rc = content_measure(&m->image.manifest, err);
    }
    json_decref(manifest);
    json_decref(index);
    return rc;
}

int main(int argc, char **argv)
{
    struct made m = {.manifest = BUF(BLOB_JSON_MAX)};
    bool insecure = false, referrer = false;
    struct image_options options;
    const char *from = NULL;
    struct error err = {0};
    int rc = -1, dir, i = 1;

    for (; i < argc - 2; i++) {
        insecure = insecure || strcmp(argv[i], "--insecure") == 0;
        referrer = referrer || strcmp(argv[i], "--referrer") == 0;
        if (strcmp(argv[i], "--from") == 0)
            from = argv[++i];
    }
    if (i != argc - 2)
        return 2;
    dir = open(argv[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (image_options_default(&options, &err) == 0 && open_image(&m, dir, from, &err) == 0) {
        options.insecure = insecure;
        rc = referrer ? registry_push_referrer(argv[i + 1], &m.image, &options, &err)
                      : registry_push(argv[i + 1], &m.image, &options, &err);
    }
    if (rc < 0)
        error_print("push_image", &err);
    for (size_t n = 0; n < m.fd_count; n++)
        fd_close(&m.fds[n]);
    fd_close(&dir);
    free(m.image.layers);
    buf_free(&m.manifest);
    return rc < 0;
}
