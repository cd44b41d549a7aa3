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
#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>

#define API_MINOR_MIN 41
#define SOCKETS_MAX   4
#define ANSWER_MAX    ((size_t)8 << 20) /* of control calls */
#define CONTROL_MS    10000L
#define STALL_SECONDS 60L
#define NAME_MAX_LEN  512

/* One answer: to `text`, or, of a streamed call, to `fd`. */
struct answer {
    struct buf text;
    int fd;
    uint64_t total, max;
    unsigned int minor; /* from Api-Version, 0 when not told */
    long status;
    CURL *curl;
    struct error *err;
    bool failed; /* *err is set */
};

static size_t on_body(char *ptr, size_t size, size_t count, void *arg)
{
    struct answer *a = arg;
    size_t len = size * count;

    curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &a->status);
    a->total += len;
    /* Only a good answer is the image; else the body says why. */
    if (a->fd < 0 || a->status != 200)
        return buf_append(&a->text, ptr, len) == 0 ? len : 0;
    if (a->total > a->max) {
        error_set(a->err, ERR_LIMIT, "the engine sends more than %llu bytes",
                  (unsigned long long)a->max);
        error_hint(a->err, "set CAPSULE_IMAGE_MAX to a larger number of bytes if the image is to "
                           "be trusted");
        a->failed = true;
        return 0;
    }
    if (fd_write_all(a->fd, ptr, len, "a copy of the engine's image", a->err) < 0) {
        a->failed = true;
        return 0;
    }
    return len;
}

static size_t on_header(char *ptr, size_t size, size_t count, void *arg)
{
    struct answer *a = arg;
    size_t len = size * count;
    unsigned int major, minor;
    char line[64];

    if (len < sizeof(line)) {
        memcpy(line, ptr, len);
        line[len] = '\0';
        for (char *p = line; *p && *p != ':'; p++)
            *p = (char)tolower((unsigned char)*p);
        if (sscanf(line, "api-version: %4u.%4u", &major, &minor) == 2 && major == ENGINE_API_MAJOR)
            a->minor = minor;
    }
    return len;
}

/* One GET. 0 with a->status, or -1 when there was no answer. */
static int get(const char *socket, const char *url, struct answer *a, struct error *err)
{
    char detail[CURL_ERROR_SIZE] = "";
    CURL *c = curl_easy_init();
    CURLcode rc;

    if (!c)
        return error_set(err, ERR_INTERNAL, "libcurl cannot start");
    a->curl = c;
    a->err = err;
    curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, socket);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROXY, "");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, detail);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, a);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, CONTROL_MS);
    if (a->fd < 0) {
        curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, CONTROL_MS);
    } else {
        curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, STALL_SECONDS);
    }
    rc = curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &a->status);
    curl_easy_cleanup(c);
    if (rc == CURLE_OK)
        return 0;
    if (a->failed)
        return -1;
    return error_set(err, rc == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT : ERR_NET,
                     "the engine at %s does not answer (%s)", socket,
                     detail[0] ? detail : curl_easy_strerror(rc));
}

int engine_refused(const struct engine *e, long status, struct slice body, const char *what,
                   struct error *err)
{
    json_t *doc = json_loadb((const char *)body.ptr, body.len, 0, NULL);
    const char *message = oci_json_str(doc, "message");

    error_set(err, status == 404 ? ERR_NOT_FOUND : ERR_NET, "%s: the engine at %s says %ld%s%.300s",
              what, e->socket, status, message ? ": " : "", message ? message : "");
    json_decref(doc);
    return -1;
}

static int refused(const struct engine *e, const struct answer *a, const char *what,
                   struct error *err)
{
    return engine_refused(e, a->status, buf_slice(&a->text), what, err);
}

void engine_close(struct engine *e)
{
    free(e->socket);
    *e = (struct engine){0};
}

static int ping(struct engine *e, struct error *err)
{
    struct answer a = {.text = BUF(ANSWER_MAX), .fd = -1};
    int rc = get(e->socket, "http://engine/_ping", &a, err);

    if (rc == 0 && a.status != 200)
        rc = refused(e, &a, "asking for its version", err);
    buf_free(&a.text);
    if (rc < 0)
        return -1;
    if (a.minor < API_MINOR_MIN)
        return error_set(err, ERR_UNSUPPORTED,
                         "the engine at %s speaks API version %d.%u, older than %d.%d", e->socket,
                         ENGINE_API_MAJOR, a.minor, ENGINE_API_MAJOR, API_MINOR_MIN);
    e->minor = a.minor;
    return 0;
}

/* The immutable ID of an image, and its first name in a registry or NULL. 1, 0 not there, -1. */
static int inspect(const struct engine *e, const char *name, char **id, char **repo_digest,
                   struct error *err)
{
    AUTO_FREE char *url =
        xasprintf("http://engine/v%d.%u/images/%s/json", ENGINE_API_MAJOR, e->minor, name);
    struct answer a = {.text = BUF(ANSWER_MAX), .fd = -1};
    int rc = get(e->socket, url, &a, err);
    const char *first;
    struct digest d;
    json_t *doc;

    if (rc == 0 && a.status == 404) {
        buf_free(&a.text);
        return 0;
    }
    if (rc == 0 && a.status != 200)
        rc = refused(e, &a, "inspecting the image", err);
    doc = rc == 0 ? oci_json_parse(buf_slice(&a.text), "the engine's answer", err) : NULL;
    buf_free(&a.text);
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

static int export_image(const struct engine *e, const char *id, const struct image_options *options,
                        struct image *out, struct error *err)
{
    AUTO_FREE char *url =
        xasprintf("http://engine/v%d.%u/images/%s/get", ENGINE_API_MAJOR, e->minor, id);
    struct answer a = {.text = BUF(ANSWER_MAX), .max = options->layer_max};
    AUTO_ARCHIVE struct archive_index *archive = NULL;
    int rc;

    a.fd = file_temp(err);
    if (a.fd < 0)
        return -1;
    rc = get(e->socket, url, &a, err);
    if (rc == 0 && a.status != 200)
        rc = refused(e, &a, "exporting the image", err);
    buf_free(&a.text);
    if (rc < 0) {
        fd_close(&a.fd);
        return -1;
    }
    log_debug("image", "exported by the engine", kv_str("id", id), kv_uint("bytes", a.total));
    archive = archive_open_fd(a.fd, "the engine's archive", options->layer_max, err);
    return archive ? docker_archive_load(archive, NULL, options, out, err) : -1;
}

static bool is_chosen(void)
{
    const char *host = getenv("DOCKER_HOST");

    return host && strncmp(host, "unix://", 7) == 0;
}

/* Where engines listen; DOCKER_HOST, when it names a socket, is the only one asked. */
static size_t find_sockets(struct engine *out)
{
    const char *host = getenv("DOCKER_HOST"), *run = getenv("XDG_RUNTIME_DIR");
    size_t n = 0;

    if (is_chosen()) {
        out[n++].socket = xstrdup(host + 7);
        return n;
    }
    if (host && host[0])
        log_warn("image", "DOCKER_HOST is not a unix:// socket and is ignored");
    out[n++].socket = xstrdup("/var/run/docker.sock");
    if (run && run[0] == '/')
        out[n++].socket = xasprintf("%s/podman/podman.sock", run);
    out[n++].socket = xstrdup("/run/podman/podman.sock");
    return n;
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

/* 1 when it answers; 0 when it is not there, which only the one in DOCKER_HOST must be; -1. */
static int reach(struct engine *e, struct error *err)
{
    struct error why = {0};
    struct stat st;

    /* Of the usual places some do not exist and some are stale; that is no error by itself. */
    if (!is_chosen() && (stat(e->socket, &st) < 0 || !S_ISSOCK(st.st_mode)))
        return 0;
    if (ping(e, &why) == 0)
        return 1;
    if (!is_chosen()) {
        log_warn("image", why.msg);
        return 0;
    }
    error_set(err, why.kind, "%s", why.msg);
    return error_hint(err, "is the engine running? DOCKER_HOST says unix://%s", e->socket);
}

static int try_engine(struct engine *e, const char *name, const struct image_options *options,
                      struct image *out, struct error *err)
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
    struct engine engines[SOCKETS_MAX] = {0};
    AUTO_FREE char *name = NULL;
    size_t count;
    int rc = 0;

    if (engine_check_name(where, &name, err) < 0)
        return -1;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    count = find_sockets(engines);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = reach(&engines[i], err);
        if (rc <= 0)
            continue;
        rc = try_engine(&engines[i], name, options, out, err);
        if (buf_printf(asked, "%s%s", asked->len ? ", " : "", engines[i].socket) < 0)
            break;
    }
    for (size_t i = 0; i < count; i++)
        engine_close(&engines[i]);
    return rc;
}

int engine_find(struct engine *out, struct error *err)
{
    struct engine engines[SOCKETS_MAX] = {0};
    size_t count;
    int rc = 0;

    curl_global_init(CURL_GLOBAL_DEFAULT);
    count = find_sockets(engines);
    for (size_t i = 0; i < count; i++) {
        if (rc == 0)
            rc = reach(&engines[i], err);
        if (rc == 1 && !out->socket) {
            *out = engines[i];
            continue;
        }
        engine_close(&engines[i]);
    }
    return rc;
}

int engine_has(const struct engine *e, const char *name, struct error *err)
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
