/*
 * Hostile layers on a small base tree. First byte: how many bytes of the rest are the first layer
 * (in 1/256); the remainder is a second one. Whatever is accepted must leave a sound tree.
 */
#include "base/log.h"
#include "oci/layer.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Four temporary files a run: in memory that is ten times faster. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    setenv("TMPDIR", "/dev/shm", 0);
    log_setup(LOG_ERROR, LOG_TEXT);
    return 0;
}

static void base(struct tree *t)
{
    static const char *const dirs[] = {"usr", "usr/bin", "usr/lib", "etc", "a/b/c"};
    struct tree_meta dir = {.mode = S_IFDIR | 0755}, file = {.mode = S_IFREG | 0644};
    struct tree_meta link = {.mode = S_IFLNK | 0777, .target = slice_str("usr/bin")};
    tree_node node;

    if (tree_begin_layer(t, NULL) < 0)
        abort();
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        if (tree_add(t, slice_str(dirs[i]), &dir, NULL, NULL) < 0)
            abort();
    if (tree_add(t, slice_str("bin"), &link, NULL, NULL) < 0 ||
        tree_add(t, slice_str("usr/bin/x"), &file, &node, NULL) < 0 ||
        tree_reserve(t, node, 4, NULL) < 0 || tree_store(t, node, 0, "base", 4, NULL) < 0 ||
        tree_link(t, slice_str("etc/y"), slice_str("bin/x"), NULL) < 0)
        abort();
}

static int apply(struct tree *t, const uint8_t *data, size_t size)
{
    struct blob b = {.fd = memfd_create("layer", MFD_CLOEXEC), .own = true, .size = size};
    struct digest diff = {.alg = HASH_SHA256};
    struct error err;
    int rc;

    b.name = xstrdup("layer");
    if (b.fd < 0 || fd_write_all(b.fd, data, size, "layer", NULL) < 0)
        abort();
    rc = layer_apply(t, &b, NULL, size % 2 ? &diff : NULL, (uint64_t)4 << 20, &err);
    blob_close(&b);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tree_limits limits = {
        .entries_max = 2000, .content_max = (uint64_t)1 << 20, .mtime_max = INT64_MAX};
    struct error err;
    struct tree *t;
    size_t first;

    if (size < 1)
        return 0;
    t = tree_new(&limits, NULL);
    if (!t)
        abort();
    base(t);
    first = (size - 1) * data[0] / 255;
    if (apply(t, data + 1, first) == 0 && first < size - 1)
        apply(t, data + 1 + first, size - 1 - first);
    /* A layer that was refused half way must not leave a broken tree behind either. */
    if (tree_check(t, &err) < 0) {
        error_print("fuzz_layer", &err);
        abort();
    }
    tree_free(t);
    return 0;
}
