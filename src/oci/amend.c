#include "oci/amend.h"

#include "base/log.h"
#include "base/strv.h"

#include <errno.h>
#include <sys/stat.h>

#define COPY_CHUNK ((size_t)256 << 10)

static int add_root_file(struct tree *t, const char *path, uint32_t mode, int64_t mtime,
                         uint64_t size, tree_node *node, struct error *err)
{
    struct tree_meta meta = {.mode = S_IFREG | mode, .mtime = mtime};
    struct tree_entry old;

    if (tree_lookup(t, slice_str(path), false, &old))
        log_warn("image", "the image has this file already; it is replaced", kv_str("path", path));
    if (tree_add(t, slice_str(path), &meta, node, err) < 0 || tree_reserve(t, *node, size, err) < 0)
        return error_wrap(err, "adding %s to the image", path);
    return 0;
}

int amend_add_file(struct tree *t, const char *path, uint32_t mode, int64_t mtime,
                   struct slice bytes, struct error *err)
{
    tree_node node;

    if (add_root_file(t, path, mode, mtime, bytes.len, &node, err) < 0)
        return -1;
    return tree_store(t, node, 0, bytes.ptr, bytes.len, err);
}

static int add_runtime(struct tree *t, const struct amend_options *o, struct error *err)
{
    AUTO_FREE uint8_t *chunk = xmalloc(COPY_CHUNK);
    uint64_t size, at = 0;
    struct stat st;
    tree_node node;

    if (fstat(o->runtime_fd, &st) < 0)
        return error_sys(err, errno, "reading capsule-runtime");
    if (!S_ISREG(st.st_mode) || st.st_size == 0)
        return error_set(err, ERR_INVALID, "capsule-runtime is not a regular file with content");
    size = (uint64_t)st.st_size;
    if (add_root_file(t, AMEND_RUNTIME_PATH, 0755, o->mtime, size, &node, err) < 0)
        return -1;
    while (at < size) {
        size_t len = size - at < COPY_CHUNK ? (size_t)(size - at) : COPY_CHUNK;

        if (fd_pread_full(o->runtime_fd, chunk, len, (off_t)at, "capsule-runtime", err) < 0 ||
            tree_store(t, node, at, chunk, len, err) < 0)
            return -1;
        at += len;
    }
    return 0;
}

int amend_tree(struct tree *t, const struct amend_options *o, struct error *err)
{
    static const struct {
        const char *path;
        uint32_t mode;
    } dirs[] = {
        {"/dev", 0755}, {"/proc", 0555}, {"/sys", 0555}, {"/run", 0755}, {"/tmp", 01777},
    };

    if (tree_begin_layer(t, err) < 0 || add_runtime(t, o, err) < 0 ||
        amend_add_file(t, AMEND_MANIFEST_PATH, 0644, o->mtime, o->manifest, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        if (tree_make_dir(t, slice_str(dirs[i].path), dirs[i].mode, o->mtime, err) < 0)
            return error_wrap(err, "making %s in the image", dirs[i].path);
    if (o->cwd && tree_make_dir(t, slice_str(o->cwd), 0755, o->mtime, err) < 0)
        return error_wrap(err, "making the working directory %s in the image", o->cwd);
    return 0;
}

static void append_all(char ***to, char *const *from)
{
    for (size_t i = 0; from && from[i]; i++)
        strv_add(to, from[i]);
}

/* One line for each thing that the image asks for and an enclave does not do. */
static void warn_without_effect(const struct image_config *c, bool user_is_root)
{
    if (user_is_root && c->user[0] && strcmp(c->user, "root") != 0 && strcmp(c->user, "0") != 0)
        log_warn("image",
                 "USER has no effect, the app runs as root (runtime.user: image in the "
                 "manifest changes that)",
                 kv_str("user", c->user));
    if (strv_len(c->volumes))
        log_warn("image",
                 "VOLUME has no effect: what the app writes there is lost with the enclave",
                 kv_str("first", c->volumes[0]), kv_uint("count", strv_len(c->volumes)));
    if (c->healthcheck)
        log_warn("image", "HEALTHCHECK has no effect");
    if (c->stop_signal[0])
        log_warn("image", "STOPSIGNAL has no effect, the app is stopped with SIGTERM",
                 kv_str("signal", c->stop_signal));
    if (strv_len(c->exposed_ports))
        log_warn(
            "image", "EXPOSE has no effect: only ports in the manifest's ingress are reachable",
            kv_str("first", c->exposed_ports[0]), kv_uint("count", strv_len(c->exposed_ports)));
}

int amend_launch(const struct image *image, bool user_is_root, struct launch *out,
                 struct error *err)
{
    const struct image_config *c = &image->config;
    AUTO_LAUNCH struct launch l = {0};

    append_all(&l.argv, c->entrypoint);
    append_all(&l.argv, c->cmd);
    append_all(&l.env, c->env);
    if (c->workdir[0] == '/')
        l.cwd = xstrdup(c->workdir);
    else
        l.cwd = xasprintf("/%s", c->workdir);
    l.user = xstrdup(user_is_root ? "" : c->user);
    if (!l.argv) {
        error_set(err, ERR_INVALID,
                  "image %.300s: has neither ENTRYPOINT nor CMD, so there is "
                  "nothing to start",
                  image->reference);
        return error_hint(err, "build the image with an ENTRYPOINT");
    }
    if (launch_check(&l, err) < 0)
        return error_wrap(err, "image %.300s", image->reference);
    warn_without_effect(c, user_is_root);
    *out = l;
    l = (struct launch){0};
    return 0;
}
