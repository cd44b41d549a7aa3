/*
 * `docker-daemon:NAME` and bare names: the local Docker or podman engine, over its UNIX socket with
 * the Docker Engine API (spec/cli-and-build.md 2; /_ping for the version, then images/NAME/json and
 * images/ID/get).
 */
#include "oci/engine.h"
#include "base/log.h"
#include "oci/archive_index.h"
#include "oci/image.h"

#include <ctype.h>
#include <jansson.h>

#define INSPECTION_MAX ((size_t)8 << 20) /* bytes */
#define STALL_SECONDS  60L
#define NAME_MAX_LEN   512

static bool take_text(void *arg, struct slice bytes)
{
    struct buf *out = arg;

    return buf_append(out, bytes.ptr, bytes.len) == 0;
}

/* What the engine says of an image. 1, 0 not there, -1. */
static int inspection(const struct container_engine *e, const char *name, struct buf *out,
                      struct error *err)
{
    AUTO_FREE char *path = xasprintf("/images/%s/json", name);
    CLEANUP(container_stream_end) struct container_stream s = {0};
    struct error why = {0};

    if (container_stream_begin(&s, e, "GET", path, NULL, take_text, out, err) < 0)
        return -1;
    container_stream_set_control(&s);
    if (container_stream_run(&s, "inspecting the image", &why) == 0)
        return 1;
    if (s.status == 404)
        return 0;
    *err = why;
    return -1;
}

/* The immutable ID of an image, and its first name in a registry or NULL. 1, 0 not there, -1. */
static int inspect(const struct container_engine *e, const char *name, char **id,
                   char **repo_digest, struct error *err)
{
    AUTO_BUF struct buf text = BUF(INSPECTION_MAX);
    int rc = inspection(e, name, &text, err);
    const char *first;
    struct digest d;
    json_t *doc;

    if (rc <= 0)
        return rc;
    doc = oci_json_parse(buf_slice(&text), "the engine's answer", err);
    if (!doc)
        return -1;
    *id = xstrdup(oci_json_str(doc, "Id") ? oci_json_str(doc, "Id") : "");
    first = json_string_value(json_array_get(json_object_get(doc, "RepoDigests"), 0));
    *repo_digest = first ? xstrdup(first) : NULL;
    json_decref(doc);
    /* podman leaves out the algorithm. */
    if (strlen(*id) == 2 * SHA256_LEN) {
        char *full = xasprintf("sha256:%s", *id);

        free(*id);
        *id = full;
    }
    rc = digest_parse(slice_str(*id), &d, err);
    return rc < 0 ? error_wrap(err, "the engine's answer") : 1;
}

/* An image as it comes, in a file. */
struct copy {
    int fd;
    uint64_t total, max;
    struct error fault; /* ours, which ended the call */
};

static bool take_image(void *arg, struct slice bytes)
{
    struct copy *c = arg;

    c->total += bytes.len;
    if (c->total > c->max) {
        error_set(&c->fault, ERR_LIMIT, "the engine sends more than %llu bytes",
                  (unsigned long long)c->max);
        error_hint(&c->fault, "set CAPSULE_IMAGE_MAX to a larger number of bytes if the image is "
                              "to be trusted");
        return false;
    }
    return fd_write_all(c->fd, bytes.ptr, bytes.len, "a copy of the engine's image", &c->fault) ==
           0;
}

static int copy_image(const struct container_engine *e, const char *id, struct copy *c,
                      struct error *err)
{
    AUTO_FREE char *path = xasprintf("/images/%s/get", id);
    CLEANUP(container_stream_end) struct container_stream s = {0};

    if (container_stream_begin(&s, e, "GET", path, NULL, take_image, c, err) < 0)
        return -1;
    container_stream_set_stall(&s, STALL_SECONDS);
    if (container_stream_run(&s, "exporting the image", err) == 0)
        return 0;
    if (c->fault.kind != ERR_NONE)
        *err = c->fault;
    return -1;
}

static int export_image(const struct container_engine *e, const char *id,
                        const struct image_options *options, struct image *out, struct error *err)
{
    AUTO_ARCHIVE struct archive_index *archive = NULL;
    struct copy c = {.max = options->layer_max};

    c.fd = file_temp(err);
    if (c.fd < 0)
        return -1;
    if (copy_image(e, id, &c, err) < 0) {
        fd_close(&c.fd);
        return -1;
    }
    log_debug("image", "exported by the engine", kv_str("id", id), kv_uint("bytes", c.total));
    archive = archive_open_fd(c.fd, "the engine's archive", options->layer_max, err);
    return archive ? docker_archive_load(archive, NULL, options, out, err) : -1;
}

int engine_check_name(const char *name, char **out, struct error *err)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "._-/:@");
    const char *slash = strrchr(name, '/');

    if (len == 0 || name[len] != '\0' || len > NAME_MAX_LEN || strstr(name, "..") ||
        strstr(name, "//") || !isalnum((unsigned char)name[0])) {
        error_set(err, ERR_USAGE, "not an image name");
        return error_hint(err, "write NAME:TAG, or dir:, oci:, oci-archive: or docker-archive: and "
                               "a path");
    }
    if (strchr(slash ? slash : name, ':') || strchr(name, '@'))
        *out = xstrdup(name);
    else
        *out = xasprintf("%s:latest", name);
    return 0;
}

static int absent(const char *asked, struct error *err)
{
    if (!asked[0]) {
        error_set(err, ERR_NOT_FOUND, "no Docker or podman engine answers on this machine");
        return error_hint(err, "start one (or set DOCKER_HOST=unix://SOCKET), or give the image as "
                               "docker://HOST/NAME, oci:DIR, oci-archive:FILE, "
                               "docker-archive:FILE or dir:ROOTFS");
    }
    error_set(err, ERR_NOT_FOUND, "the local engine (%s) does not have it", asked);
    return error_hint(err, "pull or build it there first (docker pull, podman pull), or use "
                           "docker://HOST/NAME");
}

/* 1 when it answers; 0 when it does not, which only the one in DOCKER_HOST must; -1. */
static int reach(struct container_engine *e, bool chosen, struct error *err)
{
    struct error why = {0};
    int rc = container_engine_reach(e, chosen, &why);

    if (rc >= 0)
        return rc;
    if (!chosen) {
        log_warn("image", why.msg);
        return 0;
    }
    error_set(err, why.kind, "%s", why.msg);
    return error_hint(err, "is the engine running? DOCKER_HOST says unix://%s", e->socket);
}

static int try_engine(struct container_engine *e, const char *name,
                      const struct image_options *options, struct image *out, struct error *err)
{
    AUTO_FREE char *id = NULL;
    AUTO_FREE char *repo_digest = NULL;
    int rc = inspect(e, name, &id, &repo_digest, err);

    if (rc <= 0)
        return rc;
    if (export_image(e, id, options, out, err) < 0)
        return -1;
    out->repo_digest = repo_digest;
    repo_digest = NULL;
    return 1;
}

int engine_load(const char *where, const struct image_options *options, struct image *out,
                struct buf *asked, struct error *err)
{
    struct container_engine engines[CONTAINER_PLACES_MAX];
    AUTO_FREE char *name = NULL;
    size_t count;
    bool chosen;
    int rc = 0;

    if (engine_check_name(where, &name, err) < 0)
        return -1;
    count = container_engine_places(NULL, engines, &chosen);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = reach(&engines[i], chosen, err);
        if (rc <= 0)
            continue;
        rc = try_engine(&engines[i], name, options, out, err);
        if (buf_printf(asked, "%s%s", asked->len ? ", " : "", engines[i].socket) < 0)
            break;
    }
    for (size_t i = 0; i < count; i++)
        container_engine_close(&engines[i]);
    return rc;
}

int engine_find(struct container_engine *out, struct error *err)
{
    struct container_engine engines[CONTAINER_PLACES_MAX];
    size_t count;
    bool chosen;
    int rc = 0;

    count = container_engine_places(NULL, engines, &chosen);
    for (size_t i = 0; i < count; i++) {
        if (rc == 0)
            rc = reach(&engines[i], chosen, err);
        if (rc == 1 && !out->socket) {
            *out = engines[i];
            continue;
        }
        container_engine_close(&engines[i]);
    }
    return rc;
}

int engine_has(const struct container_engine *e, const char *name, struct error *err)
{
    AUTO_FREE char *id = NULL;
    AUTO_FREE char *repo_digest = NULL;

    return inspect(e, name, &id, &repo_digest, err);
}

static int load_from_engine(const char *where, const struct image_options *options,
                            struct image *out, struct error *err)
{
    AUTO_BUF struct buf asked = BUF(1024);
    int rc = engine_load(where, options, out, &asked, err);

    if (rc == 0)
        return absent(buf_cstr(&asked), err);
    return rc < 0 ? -1 : 0;
}

const struct transport transport_docker_daemon = {"docker-daemon", load_from_engine};
