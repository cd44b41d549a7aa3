#include "cli/nitro_build_image.h"

#include "base/file.h"
#include "base/log.h"
#include "codec/json.h"
#include "container/progress.h"

#include <archive.h>
#include <archive_entry.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define CONTEXT_MAX   ((size_t)128 << 20) /* bytes of the tar: the runtime has some MiB */
#define STALL_SECONDS 600L /* a COPY into a large image takes its time, without a word */
#define COMMAND                                                                                    \
    "[\"/sbin/capsule-runtime\",\"--config-dir\",\"/etc/capsule\",\"--launch\","                   \
    "\"/etc/capsule/launch.json\"]"

/* ---- the context ---- */

static ssize_t on_write(struct archive *a, void *arg, const void *bytes, size_t len)
{
    struct buf *out = arg;

    (void)a;
    return buf_append(out, bytes, len) < 0 ? -1 : (ssize_t)len;
}

static int add_file(struct archive *a, const char *name, mode_t mode, struct slice bytes,
                    struct error *err)
{
    struct archive_entry *e = archive_entry_new();
    int rc = 0;

    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, mode);
    archive_entry_set_size(e, (la_int64_t)bytes.len);
    archive_entry_set_mtime(e, 0, 0);
    if (archive_write_header(a, e) < ARCHIVE_OK ||
        archive_write_data(a, bytes.ptr, bytes.len) != (la_ssize_t)bytes.len)
        rc = error_set(err, ERR_LIMIT, "making the builder's context: %s", archive_error_string(a));
    archive_entry_free(e);
    return rc;
}

/* Can it stand in a Dockerfile as it is? */
static bool is_plain(const char *path)
{
    return strspn(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") ==
           strlen(path);
}

/*
 * nitro-cli takes CMD when there is one, and ENTRYPOINT only otherwise (spec section 3.2). Docker
 * shows no CMD after ENTRYPOINT; podman's API shows an empty one always, which nitro-cli takes for
 * the command, so there the command stands in CMD.
 */
static const char *start_lines(bool podman)
{
    return podman ? "ENTRYPOINT []\nCMD " COMMAND "\n" : "ENTRYPOINT " COMMAND "\n";
}

static int make_context(const struct nitro_build *in, const char *uuid, bool podman,
                        struct buf *out, struct error *err)
{
    AUTO_BUF struct buf runtime = BUF(CONTEXT_MAX / 2), launch = BUF(LAUNCH_JSON_MAX);
    AUTO_BUF struct buf recipe = BUF(8192);
    struct archive *a;
    int rc = -1;

    if (file_read(in->runtime, &runtime, err) < 0 || launch_to_json(in->launch, &launch, err) < 0)
        return -1;
    /*
     * The label comes first, so that a build that is killed leaves nothing without it. WORKDIR
     * makes a directory that the image names and lacks, as engines do when they start it.
     */
    if (buf_printf(&recipe,
                   "FROM %s\nLABEL " NITRO_BUILD_LABEL
                   "=%s\nCOPY capsule-runtime /sbin/capsule-runtime\n"
                   "COPY capsule.yaml launch.json /etc/capsule/\n%s%s%s%s",
                   in->app, uuid, is_plain(in->launch->cwd) ? "WORKDIR " : "",
                   is_plain(in->launch->cwd) ? in->launch->cwd : "",
                   is_plain(in->launch->cwd) ? "\n" : "", start_lines(podman)) < 0)
        return error_set(err, ERR_LIMIT, "the working directory's name is too long");
    a = archive_write_new();
    archive_write_set_format_ustar(a);
    if (archive_write_open(a, out, NULL, on_write, NULL) == ARCHIVE_OK &&
        add_file(a, "Dockerfile", 0644, buf_slice(&recipe), err) == 0 &&
        add_file(a, "capsule-runtime", 0755, buf_slice(&runtime), err) == 0 &&
        add_file(a, "capsule.yaml", 0644, in->manifest, err) == 0)
        rc = add_file(a, "launch.json", 0644, buf_slice(&launch), err);
    if (rc == 0 && archive_write_close(a) != ARCHIVE_OK)
        rc = error_set(err, ERR_LIMIT, "making the builder's context: %s", archive_error_string(a));
    archive_write_free(a);
    return rc;
}

/* ---- the engine's build ---- */

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    bool (**stopped)(void) = arg;

    (void)a;
    (void)b;
    (void)c;
    (void)d;
    return (*stopped)();
}

void nitro_build_watch(struct container_stream *s, bool (*stopped)(void))
{
    static bool (*watched)(void); /* one build a process */

    watched = stopped;
    curl_easy_setopt(s->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(s->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(s->curl, CURLOPT_XFERINFODATA, (void *)&watched);
}

static bool say(void *arg, const char *text)
{
    (void)arg;
    if (text[0])
        log_debug("engine", text);
    return true;
}

static int run_build(const struct container_engine *e, const char *tag, const char *uuid,
                     const struct buf *context, bool (*stopped)(void), struct error *err)
{
    AUTO_FREE char *labels = xasprintf("{\"" NITRO_BUILD_LABEL "\":\"%s\"}", uuid);
    AUTO_FREE char *escaped = container_escape(labels);
    AUTO_FREE char *path = xasprintf("/build?t=%s&rm=1&forcerm=1&labels=%s", tag, escaped);
    CLEANUP(container_stream_end) struct container_stream s = {0};
    struct container_progress p = CONTAINER_PROGRESS(say, NULL);
    int rc;

    if (container_stream_begin(&s, e, "POST", path, NULL, container_progress_take, &p, err) < 0)
        return -1;
    curl_easy_setopt(s.curl, CURLOPT_POSTFIELDS, (const char *)context->ptr);
    curl_easy_setopt(s.curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)context->len);
    container_stream_set_stall(&s, STALL_SECONDS);
    nitro_build_watch(&s, stopped);
    rc = container_stream_run(&s, "building the amended image", err);
    container_progress_free(&p);
    if (p.fault.kind != ERR_NONE) {
        *err = p.fault;
        return error_wrap(err, "building the amended image");
    }
    return rc;
}

/* ---- what came out ---- */

static bool is_empty(const json_t *list)
{
    return !list || json_is_null(list) || (json_is_array(list) && json_array_size(list) == 0);
}

/* Is it the runtime's command that nitro-cli finds, and nothing else? */
static bool starts_runtime(const json_t *config)
{
    json_t *entrypoint = json_object_get(config, "Entrypoint");
    json_t *cmd = json_object_get(config, "Cmd");
    json_t *want = json_loads(COMMAND, 0, NULL);
    bool good = !cmd || json_is_null(cmd) ? json_equal(entrypoint, want)
                                          : json_equal(cmd, want) && is_empty(entrypoint);

    json_decref(want);
    return good;
}

static int check_image(const struct container_engine *e, const char *tag, struct error *err)
{
    AUTO_FREE char *path = xasprintf("/images/%s/json", tag);
    AUTO_CONTAINER_ANSWER struct container_answer a = {0};
    AUTO_JSON json_t *doc = NULL;

    if (container_call(e, "GET", path, NULL, &a, err) < 0)
        return -1;
    if (a.status != 200)
        return container_refused(e, &a, "looking at the amended image", err);
    if (json_read_object(buf_slice(&a.body), &doc, NULL, err) < 0)
        return error_wrap(err, "looking at the amended image");
    if (starts_runtime(json_object_get(doc, "Config")))
        return 0;
    return error_set(err, ERR_UNSUPPORTED,
                     "the engine at %s made an image that does not start capsule-runtime alone",
                     e->socket);
}

int nitro_build_image(const struct nitro_build *in, const struct container_engine *e,
                      const char *tag, const char *uuid, bool (*stopped)(void), struct error *err)
{
    AUTO_BUF struct buf context = BUF(CONTEXT_MAX);

    if (make_context(in, uuid, e->podman, &context, err) < 0 ||
        run_build(e, tag, uuid, &context, stopped, err) < 0)
        return -1;
    return check_image(e, tag, err);
}
