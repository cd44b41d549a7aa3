#include "oci/output.h"

#include "base/log.h"
#include "oci/archive_stream.h"
#include "oci/engine.h"
#include "oci/push.h"
#include "oci/reference.h"
#include "oci/registry_hosts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* A destination taken apart; the strings are owned. */
struct place {
    char *path;
    char *tag; /* NULL when not told */
};

static void place_free(struct place *p)
{
    free(p->path);
    free(p->tag);
}

struct output {
    const char *name;
    int (*check)(const struct place *p, struct error *err);
    int (*send)(const struct place *p, const struct content_image *image, const char *name,
                const struct image_options *options, struct error *err);
    bool is_name; /* what follows is a name, not a path and a tag */
};

/* ---- archives ---- */

/* Can something new come into being there? */
static int check_file(const struct place *p, struct error *err)
{
    const char *slash = strrchr(p->path, '/');
    AUTO_FREE char *dir = !slash             ? xstrdup(".")
                          : slash == p->path ? xstrdup("/")
                                             : xstrndup(p->path, (size_t)(slash - p->path));
    struct stat st;

    if (stat(p->path, &st) == 0 && S_ISDIR(st.st_mode))
        return error_set(err, ERR_INVALID, "%s: is a directory", p->path);
    if (stat(p->path, &st) == 0 && !S_ISREG(st.st_mode))
        return 0;
    if (access(dir, W_OK | X_OK) < 0)
        return error_sys(err, errno, "%s: no file can be made in %s", p->path, dir);
    return 0;
}

static int write_archive(const char *path, struct archive_stream *s, struct error *err)
{
    CLEANUP(atomic_file_drop) struct atomic_file f = ATOMIC_FILE_NONE;
    AUTO_FD int fd = -1;
    struct stat st;

    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        fd = open(path, O_WRONLY | O_CLOEXEC);
        return fd < 0 ? error_sys(err, errno, "opening %s", path)
                      : archive_stream_write(s, fd, path, err);
    }
    if (atomic_file_open(&f, path, 0644, err) < 0 || archive_stream_write(s, f.fd, path, err) < 0)
        return -1;
    return atomic_file_commit(&f, err);
}

static int send_oci_archive(const struct place *p, const struct content_image *image,
                            const char *name, const struct image_options *options,
                            struct error *err)
{
    AUTO_ARCHIVE_STREAM struct archive_stream *s = archive_stream_oci(image, p->tag);

    (void)name;
    (void)options;
    return write_archive(p->path, s, err);
}

static int check_docker_archive(const struct place *p, struct error *err)
{
    AUTO_FREE char *full = NULL;

    if (p->tag && engine_check_name(p->tag, &full, err) < 0)
        return -1;
    return check_file(p, err);
}

static int send_docker_archive(const struct place *p, const struct content_image *image,
                               const char *name, const struct image_options *options,
                               struct error *err)
{
    AUTO_ARCHIVE_STREAM struct archive_stream *s = NULL;
    AUTO_FREE char *full = NULL;

    (void)options;
    if (engine_check_name(p->tag ? p->tag : name, &full, err) < 0)
        return -1;
    s = archive_stream_docker(image, full);
    return write_archive(p->path, s, err);
}

/* ---- layouts ---- */

static int check_oci(const struct place *p, struct error *err)
{
    return layout_check(p->path, err);
}

static int send_oci(const struct place *p, const struct content_image *image, const char *name,
                    const struct image_options *options, struct error *err)
{
    (void)name;
    (void)options;
    return layout_write(p->path, p->tag, image, err);
}

/* ---- engines ---- */

static int no_engine(struct error *err)
{
    error_set(err, ERR_NOT_FOUND, "no Docker or podman engine answers on this machine");
    return error_hint(err, "start one, or set DOCKER_HOST=unix://SOCKET");
}

static int check_engine(const struct place *p, struct error *err)
{
    AUTO_CONTAINER_ENGINE struct container_engine e = {0};
    AUTO_FREE char *full = NULL;
    int rc = engine_check_name(p->path, &full, err) < 0 ? -1 : engine_find(&e, err);

    return rc == 0 ? no_engine(err) : rc < 0 ? -1 : 0;
}

int image_output_engine(const struct content_image *image, const char *name, struct error *err)
{
    AUTO_ARCHIVE_STREAM struct archive_stream *s = NULL;
    AUTO_CONTAINER_ENGINE struct container_engine e = {0};
    AUTO_FREE char *full = NULL;
    int rc;

    if (engine_check_name(name, &full, err) < 0)
        return -1;
    rc = engine_find(&e, err);
    if (rc <= 0)
        return rc;
    s = archive_stream_docker(image, full);
    return engine_send(&e, s, full, err) < 0 ? -1 : 1;
}

static int send_engine(const struct place *p, const struct content_image *image, const char *name,
                       const struct image_options *options, struct error *err)
{
    int rc = image_output_engine(image, p->path, err);

    (void)name;
    (void)options;
    return rc == 0 ? no_engine(err) : rc < 0 ? -1 : 0;
}

/* ---- registries ---- */

static int check_registry(const struct place *p, struct error *err)
{
    AUTO_REFERENCE struct reference ref = {0};
    AUTO_FREE char *host = NULL;

    if (strncmp(p->path, "//", 2) != 0)
        return error_set(err, ERR_USAGE, "two slashes belong before the name: docker://%s",
                         p->path);
    if (reference_parse(slice_str(p->path + 2), &ref, err) < 0)
        return -1;
    host = ref.host ? xstrdup(ref.host) : registry_default_host(err);
    return host ? 0 : -1;
}

static int send_registry(const struct place *p, const struct content_image *image, const char *name,
                         const struct image_options *options, struct error *err)
{
    (void)name;
    return registry_push(p->path + 2, image, options, err);
}

/* ---- which ---- */

static const struct output outputs[] = {
    {"oci", check_oci, send_oci, false},
    {"oci-archive", check_file, send_oci_archive, false},
    {"docker-archive", check_docker_archive, send_docker_archive, false},
    {"docker-daemon", check_engine, send_engine, true},
    {"docker", check_registry, send_registry, true},
};

static int parse(const char *destination, const struct output **o, struct place *p,
                 struct error *err)
{
    const char *colon = strchr(destination, ':');
    size_t len = colon ? (size_t)(colon - destination) : 0;

    for (size_t i = 0; i < ARRAY_LEN(outputs); i++) {
        if (!colon || strlen(outputs[i].name) != len ||
            strncmp(outputs[i].name, destination, len) != 0)
            continue;
        *o = &outputs[i];
        if (!outputs[i].is_name)
            return image_split_tag(colon + 1, &p->path, &p->tag, err);
        p->path = xstrdup(colon + 1);
        return p->path[0] ? 0 : error_set(err, ERR_USAGE, "a name is missing");
    }
    error_set(err, ERR_USAGE, "not a place for an image");
    return error_hint(err, "write oci:DIR[:TAG], oci-archive:FILE[:TAG], "
                           "docker-archive:FILE[:NAME:TAG], docker-daemon:NAME:TAG or "
                           "docker://[HOST/]NAME[:TAG]");
}

int image_output_check(const char *destination, struct error *err)
{
    CLEANUP(place_free) struct place p = {0};
    const struct output *o = NULL;

    if (parse(destination, &o, &p, err) < 0 || o->check(&p, err) < 0)
        return error_wrap(err, "output %.300s", destination);
    return 0;
}

int image_output(const char *destination, const struct content_image *image, const char *name,
                 const struct image_options *options, struct error *err)
{
    CLEANUP(place_free) struct place p = {0};
    const struct output *o = NULL;

    if (parse(destination, &o, &p, err) < 0 || o->send(&p, image, name, options, err) < 0)
        return error_wrap(err, "output %.300s", destination);
    log_info("image", "written", kv_str("to", destination));
    return 0;
}

bool image_output_takes_referrers(const char *destination)
{
    return strncmp(destination, "docker://", 9) == 0 || strncmp(destination, "oci:", 4) == 0;
}

int image_output_referrer(const char *destination, const struct content_image *artifact,
                          const struct image_options *options, struct error *err)
{
    CLEANUP(place_free) struct place p = {0};
    const struct output *o = NULL;
    int rc;

    if (!image_output_takes_referrers(destination))
        return error_set(err, ERR_UNSUPPORTED, "output %.300s: takes no artifacts about an image",
                         destination);
    if (parse(destination, &o, &p, err) < 0)
        return error_wrap(err, "output %.300s", destination);
    rc = strcmp(o->name, "oci") == 0 ? layout_write_artifact(p.path, artifact, err)
                                     : registry_push_referrer(p.path + 2, artifact, options, err);
    if (rc < 0)
        return error_wrap(err, "output %.300s", destination);
    log_info("image", "attached", kv_str("to", destination));
    return 0;
}
