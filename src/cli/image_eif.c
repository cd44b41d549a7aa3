#include "cli/image_eif.h"

#include "base/file.h"
#include "oci/release.h"

#include <stdio.h>
#include <sys/stat.h>

#define CHUNK ((size_t)256 << 10)

bool image_eif_is_file(const char *operand)
{
    size_t n = strlen(operand);

    return operand[0] == '/' || operand[0] == '.' ||
           (n > 4 && strcmp(operand + n - 4, ".eif") == 0);
}

/* 1 measured, 0 when the store has no such image, or -1. */
static int measure_stored(const char *name, struct eif_measurements *out, struct error *err)
{
    AUTO_STORE struct store *s = store_open(NULL, err);
    AUTO_BLOB struct blob eif = BLOB_NONE;
    struct stored_image image;
    struct error why = {0};

    if (!s)
        return -1;
    if (store_find(s, name, &image, &why) < 0) {
        if (why.kind == ERR_NOT_FOUND)
            return 0;
        *err = why;
        return -1;
    }
    if (store_open_blob(s, &image.eif, &eif, err) < 0)
        return -1;
    return eif_measure_sound(eif.fd, name, out, err) < 0 ? -1 : 1;
}

/* The content of a file of the tree in an unnamed file of its own. */
static int copy_out(struct tree *t, tree_node node, int fd, struct error *err)
{
    AUTO_TREE_CONTENT struct tree_content c = TREE_CONTENT_NONE;
    AUTO_FREE uint8_t *chunk = xmalloc(CHUNK);
    ssize_t n;

    if (tree_content_open(t, node, &c, err) < 0)
        return -1;
    while ((n = tree_content_read(&c, chunk, CHUNK, err)) > 0)
        if (fd_write_all(fd, chunk, (size_t)n, "a copy of the EIF", err) < 0)
            return -1;
    return n < 0 ? -1 : 0;
}

static int measure_loaded(const char *reference, const struct image_options *options,
                          struct eif_measurements *out, struct error *err)
{
    AUTO_IMAGE struct image im = {0};
    struct tree_entry e;
    AUTO_FD int fd = -1;

    if (image_load(reference, options, &im, err) < 0)
        return -1;
    if (!tree_lookup(im.tree, slice_str(RELEASE_EIF_PATH), true, &e) || !S_ISREG(e.mode)) {
        error_set(err, ERR_INVALID,
                  "image %.300s: is no release image: it has no " RELEASE_EIF_PATH, reference);
        return error_hint(err, "capsule-cli build makes release images");
    }
    fd = file_temp(err);
    if (fd < 0 || copy_out(im.tree, e.node, fd, err) < 0)
        return error_wrap(err, "image %.300s", reference);
    return eif_measure_sound(fd, reference, out, err);
}

int image_eif_measure(const char *operand, const struct image_options *options,
                      struct eif_measurements *out, struct error *err)
{
    int rc = 0;

    if (image_eif_is_file(operand))
        return eif_measure_file(operand, out, err);
    if (!image_names_transport(operand))
        rc = measure_stored(operand, out, err);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    if (measure_loaded(operand, options, out, err) == 0)
        return 0;
    return image_names_transport(operand) ? -1 : error_wrap(err, "not in the local store");
}
