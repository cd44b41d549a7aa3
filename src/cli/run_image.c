/* Which EIF `capsule-cli run` starts, and the manifest of the host's side. */
#include "base/file.h"
#include "base/log.h"
#include "cli/image_eif.h"
#include "cli/manifest_input.h"
#include "cli/run.h"
#include "container/life.h"
#include "eif/ramdisk.h"
#include "oci/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define PACKED_MANIFEST "rootfs/etc/capsule/capsule.yaml"

/* Appends the content of one file of a ramdisk. Returns 1, 0 when it is not there, or -1. */
static int find_in_ramdisk(struct eif_ramdisk *from, const char *name, const char *path,
                           struct buf *out, struct error *err)
{
    struct cpio_entry e;
    struct slice piece;
    int rc;

    while ((rc = eif_ramdisk_next(from, &e, err)) == 1) {
        if (!slice_equal_str(e.name, path) || !S_ISREG(e.mode))
            continue;
        while ((rc = eif_ramdisk_data(from, &piece, err)) == 1)
            if (buf_append(out, piece.ptr, piece.len) < 0)
                return error_set(err, ERR_LIMIT, "%s: %s in it is larger than %zu bytes", name,
                                 path, out->max);
        return rc < 0 ? -1 : 1;
    }
    return rc;
}

static int no_eif(const char *path, int sys, struct error *err)
{
    error_sys(err, sys, "opening %s", path);
    return sys == ENOENT ? error_hint(err, "build it first: capsule-cli build --eif %s", path) : -1;
}

/* The manifest that was built into an EIF: it tells ports and services without any other file. */
static int manifest_of_eif(const char *path, struct buf *out, struct error *err)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    AUTO_EIF_RAMDISK struct eif_ramdisk *app = NULL;
    int rc = 0;

    if (fd < 0)
        return no_eif(path, errno, err);
    app = eif_ramdisk_open(fd, path, 1, err);
    if (!app && err->kind != ERR_NOT_FOUND)
        return -1;
    if (app)
        rc = find_in_ramdisk(app, path, PACKED_MANIFEST, out, err);
    if (rc < 0)
        return error_wrap(err, "looking for the manifest in %s", path);
    if (rc == 0) {
        error_set(err, ERR_NOT_FOUND, "%s: it holds no manifest", path);
        return error_hint(err, "name one with -f, if this image was built by another tool");
    }
    return 0;
}

static bool looks_like_manifest(const char *name)
{
    const char *dot = name ? strrchr(name, '.') : NULL;

    return dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

static int find_image(struct run *r, const char *name, struct error *err)
{
    AUTO_STORE struct store *s = store_open(NULL, err);
    CLEANUP(blob_close) struct blob manifest = BLOB_NONE;
    struct stored_image image;
    char digest[DIGEST_TEXT_MAX];

    if (!s)
        return -1;
    if (store_find(s, name, &image, err) < 0) {
        if (err->kind != ERR_NOT_FOUND)
            return -1;
        error_set(err, ERR_NOT_FOUND, "%s: no such image in %s", name, store_dir(s));
        if (looks_like_manifest(name))
            return error_hint(err, "name a manifest with -f: capsule-cli run -f %s", name);
        return error_hint(err, "build it first: capsule-cli build -f %s",
                          r->file && strcmp(r->file, "-") != 0 ? r->file : MANIFEST_DEFAULT_FILE);
    }
    if (store_open_blob(s, &image.manifest, &manifest, err) < 0 ||
        blob_read(&manifest, &image.manifest.digest, &r->manifest, err) < 0)
        return error_wrap(err, "reading the manifest of %s", name);
    /* Where an OCI image layout keeps its blobs. */
    digest_text(&image.eif.digest, digest);
    digest[strcspn(digest, ":")] = '/';
    r->eif = xasprintf("%s/blobs/%s", store_dir(s), digest);
    r->image = xstrdup(name);
    return 0;
}

/* The reference of an image in an engine has no such look. */
static bool may_be_in_engine(const struct run *r, const char *name)
{
    return !r->engine && name[0] != '/' && strncmp(name, "sha256:", 7) != 0;
}

/* 1 when an engine of this machine has it, and is now in r->through. Whatever fails says no. */
static int find_in_engine(struct run *r, const char *name)
{
    struct error why = {0};
    int rc = 0;

    if (!may_be_in_engine(r, name) || container_engine_open(NULL, &r->through, &why) < 0)
        return 0;
    rc = container_has_image(&r->through, name, &why);
    if (rc == 1) {
        log_info("run", "the image is not in the local store; taking the engine that has it",
                 kv_str("image", name), kv_str("engine", r->through.socket));
        r->image = xstrdup(name);
        return 1;
    }
    container_engine_close(&r->through);
    return 0;
}

static int find_by_name(struct run *r, const char *name, struct error *err)
{
    if (r->engine) {
        r->image = xstrdup(name);
        return container_engine_open(r->engine, &r->through, err);
    }
    if (find_image(r, name, err) == 0)
        return 0;
    return err->kind == ERR_NOT_FOUND && find_in_engine(r, name) ? 0 : -1;
}

int run_image_find(struct run *r, struct manifest **m, struct error *err)
{
    AUTO_MANIFEST struct manifest *given = NULL;
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    const char *file = r->file ? r->file : r->operand ? NULL : MANIFEST_DEFAULT_FILE;

    if (file && cli_load_manifest(file, false, &given, err) < 0)
        return -1;
    if (r->operand && image_eif_is_file(r->operand)) {
        r->image = xstrdup(r->operand);
        /* The shell of a detached run has another working directory. */
        r->eif = realpath(r->operand, NULL);
        if (!r->eif)
            return no_eif(r->operand, errno, err);
        if (given ? buf_append(&r->manifest, given->source.ptr, given->source.len) < 0
                  : manifest_of_eif(r->operand, &r->manifest, err) < 0)
            return -1;
    } else if (find_by_name(r, given ? given->target : r->operand, err) < 0) {
        return -1;
    }
    if (r->through.socket) {
        *m = given;
        given = NULL;
        return 0;
    }
    if (manifest_load(buf_slice(&r->manifest), "the image's manifest", NULL, 0, m, &problems, err) <
        0) {
        manifest_problems_print(&problems, "the image's manifest", stderr);
        return -1;
    }
    return 0;
}
