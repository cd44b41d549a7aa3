#include "cli/nitro_build.h"

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/nitro_build_image.h"
#include "cli/nitro_build_mark.h"
#include "codec/json.h"
#include "container/frames.h"
#include "container/life.h"
#include "eif/sign.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#define STDOUT_MAX   ((size_t)1 << 20)
#define LINE_MAX_LEN 4096
#define END_TRIES    100 /* of END_MS, for the container to end after its log has */
#define END_MS       100

/* What exists outside of this process, to be removed; empty while it does not. */
struct work {
    const struct nitro_build *in;
    const char *builder; /* as the engine names it */
    char *builder_id;
    struct container_engine engine;
    char uuid[NITRO_BUILD_UUID_LEN + 1];
    struct nitro_build_mark mark;
    bool left;                      /* something could not be removed */
    char *intermediate, *converted; /* image names, NAME:latest */
    char *dir;                      /* the build directory */
    char container[CONTAINER_ID_MAX + 1];
};

/* What the container says. */
struct said {
    struct container_frames frames;
    struct buf json; /* its standard output */
    struct buf line; /* of its standard error, unfinished */
    char last[LINE_MAX_LEN];
    bool no_space;
    struct error fault; /* kind ERR_NONE while all is well */
};

/* ---- signals ---- */

static volatile sig_atomic_t stop_signal;

static void on_signal(int sig)
{
    stop_signal = sig;
}

static bool stopped(void)
{
    return stop_signal != 0;
}

static int check_stopped(struct error *err)
{
    return stopped() ? error_set(err, ERR_INTERNAL, "stopped by a signal") : 0;
}

/* ---- removing ---- */

static void remove_image(struct work *w, const char *name)
{
    const struct container_engine *e = &w->engine;
    AUTO_FREE char *path = xasprintf("/images/%s?force=1", name);
    AUTO_CONTAINER_ANSWER struct container_answer a = {0};
    struct error err = {0};

    if (container_call(e, "DELETE", path, NULL, &a, &err) == 0 &&
        (a.status == 200 || a.status == 404))
        return;
    if (a.status)
        (void)container_refused(e, &a, "removing an image", &err);
    w->left = true;
    log_warn("build", "an image of the build stays behind", kv_str("image", name),
             kv_str("reason", err.msg));
}

static void clean_up(struct work *w)
{
    struct error err = {0};

    if (w->container[0] && container_remove(&w->engine, w->container, &err) < 0) {
        w->left = true;
        log_warn("build", "a container of the build stays behind", kv_str("reason", err.msg));
    }
    if (w->converted)
        remove_image(w, w->converted);
    if (w->intermediate)
        remove_image(w, w->intermediate);
    if (w->dir && tree_remove(w->dir, &err) < 0) {
        w->left = true;
        log_warn("build", "the build directory stays behind", kv_str("reason", err.msg));
    }
    if (w->left)
        log_info("build", "capsule-cli prune removes it later", kv_str("build", w->uuid));
    nitro_build_mark_close(&w->mark, w->left);
    container_engine_close(&w->engine);
    free(w->builder_id);
    free(w->converted);
    free(w->intermediate);
    free(w->dir);
}

/* ---- preparing ---- */

static int draw_uuid(char out[NITRO_BUILD_UUID_LEN + 1], struct error *err)
{
    AUTO_BUF struct buf text = BUF(64);

    if (file_read("/proc/sys/kernel/random/uuid", &text, err) < 0)
        return -1;
    if (text.len < NITRO_BUILD_UUID_LEN)
        return error_set(err, ERR_INTERNAL, "the kernel's UUID is short");
    memcpy(out, text.ptr, NITRO_BUILD_UUID_LEN);
    out[NITRO_BUILD_UUID_LEN] = '\0';
    return 0;
}

static bool going(void *arg, const char *line)
{
    (void)arg;
    if (line[0])
        log_debug("engine", line);
    return !stopped();
}

/* The engine runs it, so it is one that an engine has or can pull. */
static int name_builder(struct work *w, struct error *err)
{
    static const char *const ours[] = {"docker-daemon:", "docker://"};
    static const char *const other[] = {"dir:", "oci:", "oci-archive:", "docker-archive:"};
    const char *name = w->in->builder;

    for (size_t i = 0; i < ARRAY_LEN(other); i++)
        if (strncmp(name, other[i], strlen(other[i])) == 0)
            return error_set(err, ERR_INVALID,
                             "sources.nitro-cli: %s: the engine runs it, so it must be the name of "
                             "an image there or in a registry",
                             name);
    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (strncmp(name, ours[i], strlen(ours[i])) == 0)
            name += strlen(ours[i]);
    w->builder = name;
    return 0;
}

static int need_builder(const struct work *w, struct error *err)
{
    int rc = w->in->pull ? 0 : container_has_image(&w->engine, w->builder, err);

    if (rc != 0)
        return rc < 0 ? -1 : 0;
    log_info("build", "pulling the builder", kv_str("image", w->builder));
    if (container_pull(&w->engine, w->builder, NULL, going, NULL, err) < 0) {
        error_wrap(err, "sources.nitro-cli: %s", w->builder);
        return error_hint(err, "an image that needs a login must be pulled beforehand");
    }
    return 0;
}

/* The first that a registry knows: podman has some of its own for what was made on this machine. */
static const char *repo_digest(const json_t *image)
{
    const json_t *list = json_object_get(image, "RepoDigests");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));

        if (text && strncmp(text, "localhost/", 10) != 0)
            return text;
    }
    return NULL;
}

/* From here on the builder is what it is now, whatever its name leads to later. */
static int pin_builder(struct work *w, struct error *err)
{
    AUTO_FREE char *name = container_escape(w->builder);
    AUTO_FREE char *path = xasprintf("/images/%s/json", name);
    AUTO_CONTAINER_ANSWER struct container_answer a = {0};
    AUTO_JSON json_t *doc = NULL;
    const char *id, *text;
    struct digest digest;

    if (container_call(&w->engine, "GET", path, NULL, &a, err) < 0)
        return -1;
    if (a.status != 200)
        return container_refused(&w->engine, &a, "looking at the builder", err);
    if (json_read_object(buf_slice(&a.body), &doc, NULL, err) < 0)
        return error_wrap(err, "looking at the builder: the engine's answer");
    id = json_string_value(json_object_get(doc, "Id"));
    text = repo_digest(doc);
    if (!id)
        return error_set(err, ERR_INVALID, "the engine does not tell the builder's ID");
    /* podman leaves the algorithm out. */
    w->builder_id = strchr(id, ':') ? xstrdup(id) : xasprintf("sha256:%s", id);
    if (digest_parse(slice_str(w->builder_id), &digest, err) < 0)
        return -1;
    log_info("build", "builder", kv_str("image", w->builder), kv_str("id", w->builder_id));
    return w->in->found ? w->in->found(w->in->found_arg, &digest, text, err) : 0;
}

static int need_app(const struct work *w, struct error *err)
{
    /* What is no image of any engine has no ID. */
    int rc = w->in->app[0] ? container_has_image(&w->engine, w->in->app, err) : 0;

    if (rc != 0)
        return rc < 0 ? -1 : 0;
    error_set(err, ERR_NOT_FOUND, "the engine at %s does not have the app image%s%.12s",
              w->engine.socket, w->in->app[0] ? " " : "", w->in->app);
    return error_hint(err,
                      "--eif-builder nitro-cli takes sources.app from the engine that converts "
                      "it: pull or load it there, and name it docker-daemon:NAME");
}

/* The Dockerfile's one line keeps nitro-cli on this engine (spec section 3.3, item 2). */
static int make_dir(struct work *w, struct error *err)
{
    const char *temp = getenv("TMPDIR");
    AUTO_FREE char *dir =
        xasprintf("%s/" NITRO_BUILD_DIR "%s", temp && temp[0] ? temp : "/var/tmp", w->uuid);
    AUTO_FREE char *text = xasprintf("FROM %s\n", w->intermediate);
    AUTO_FREE char *context = NULL, *recipe = NULL;

    if (nitro_build_mark_make(w->uuid, w->engine.socket, dir, &w->mark, err) < 0)
        return -1;
    if (mkdir(dir, 0700) < 0)
        return error_sys(err, errno, "making a build directory %s", dir);
    w->dir = xstrdup(dir);
    context = xasprintf("%s/docker-context", dir);
    recipe = xasprintf("%s/Dockerfile", context);
    if (mkdir(context, 0755) < 0)
        return error_sys(err, errno, "making %s", context);
    return file_write_atomic(recipe, slice_str(text), 0644, err);
}

static int prepare(struct work *w, struct error *err)
{
    char second[NITRO_BUILD_UUID_LEN + 1];

    if (name_builder(w, err) < 0 || container_engine_open(NULL, &w->engine, err) < 0 ||
        draw_uuid(w->uuid, err) < 0 || draw_uuid(second, err) < 0 || need_app(w, err) < 0 ||
        need_builder(w, err) < 0 || pin_builder(w, err) < 0)
        return -1;
    w->intermediate = xasprintf("capsule-intermediate-%s:latest", w->uuid);
    if (make_dir(w, err) < 0)
        return -1;
    w->converted = xasprintf("capsule-eif-build-%s:latest", second);
    log_info("build", "amending the app image", kv_str("engine", w->engine.socket));
    return nitro_build_image(w->in, &w->engine, w->intermediate, w->uuid, stopped, err);
}

/* ---- converting ---- */

static void put_bind(struct json_writer *j, const char *source, const char *target)
{
    json_put_object(j);
    json_put_key(j, "Type");
    json_put_cstr(j, "bind");
    json_put_key(j, "Source");
    json_put_cstr(j, source);
    json_put_key(j, "Target");
    json_put_cstr(j, target);
    json_put_object_end(j);
}

static int format_container(const struct work *w, struct buf *out, struct error *err)
{
    const char *const command[] = {"build-enclave",  "--docker-uri",          w->converted,
                                   "--docker-dir",   "/build/docker-context", "--output-file",
                                   "application.eif"};
    struct json_writer j = {.out = out};

    json_put_object(&j);
    json_put_key(&j, "Image");
    json_put_cstr(&j, w->builder_id);
    json_put_key(&j, "Entrypoint");
    json_put_array(&j);
    json_put_cstr(&j, "nitro-cli");
    json_put_array_end(&j);
    json_put_key(&j, "Cmd");
    json_put_array(&j);
    for (size_t i = 0; i < ARRAY_LEN(command); i++)
        json_put_cstr(&j, command[i]);
    json_put_array_end(&j);
    json_put_key(&j, "WorkingDir");
    json_put_cstr(&j, "/build");
    json_put_key(&j, "Labels");
    json_put_object(&j);
    json_put_key(&j, NITRO_BUILD_LABEL);
    json_put_cstr(&j, w->uuid);
    json_put_object_end(&j);
    json_put_key(&j, "HostConfig");
    json_put_object(&j);
    json_put_key(&j, "Mounts");
    json_put_array(&j);
    put_bind(&j, w->engine.socket, "/var/run/docker.sock");
    put_bind(&j, w->dir, "/build");
    json_put_array_end(&j);
    json_put_object_end(&j);
    json_put_object_end(&j);
    return j.failed ? error_set(err, ERR_LIMIT, "the container's description is too long") : 0;
}

static void take_error_line(struct said *s)
{
    const char *line = buf_cstr(&s->line);

    if (line[strspn(line, "\r\n ")]) {
        log_info("nitro-cli", line);
        snprintf(s->last, sizeof(s->last), "%s", line);
        s->no_space = s->no_space || strstr(line, "no space left on device");
    }
    buf_clear(&s->line);
}

static void take_output(void *arg, int stream, struct slice bytes)
{
    struct said *s = arg;

    if (stream == 1) {
        if (buf_append(&s->json, bytes.ptr, bytes.len) < 0)
            error_set(&s->fault, ERR_LIMIT, "nitro-cli printed more than %zu bytes", STDOUT_MAX);
        return;
    }
    for (size_t i = 0; i < bytes.len; i++) {
        if (bytes.ptr[i] == '\n' || bytes.ptr[i] == '\0')
            take_error_line(s);
        else if (buf_append_byte(&s->line, bytes.ptr[i]) < 0)
            take_error_line(s); /* a line too long is shown in pieces */
    }
}

static bool take_log(void *arg, struct slice bytes)
{
    struct said *s = arg;

    return container_frames_feed(&s->frames, bytes, take_output, s, &s->fault) == 0 &&
           s->fault.kind == ERR_NONE;
}

/* All that it says until it ends. */
static int follow(const struct work *w, struct said *s, struct error *err)
{
    AUTO_FREE char *path =
        xasprintf("/containers/%s/logs?follow=1&stdout=1&stderr=1", w->container);
    CLEANUP(container_stream_end) struct container_stream stream = {0};
    int rc;

    if (container_stream_begin(&stream, &w->engine, "GET", path, NULL, take_log, s, err) < 0)
        return -1;
    nitro_build_watch(&stream, stopped);
    rc = container_stream_run(&stream, "reading what nitro-cli says", err);
    take_error_line(s);
    if (s->fault.kind != ERR_NONE) {
        *err = s->fault;
        return -1;
    }
    return rc;
}

static int wait_for_end(const struct work *w, int *status, struct error *err)
{
    for (int i = 0; i < END_TRIES; i++) {
        struct container_state state = {0};

        if (check_stopped(err) < 0 || container_inspect(&w->engine, w->container, &state, err) < 0)
            return -1;
        if (!state.there)
            return error_set(err, ERR_NET, "somebody has removed the builder's container");
        if (!state.running) {
            *status = state.status;
            return 0;
        }
        poll(NULL, 0, END_MS);
    }
    return error_set(err, ERR_TIMEOUT, "the builder's container does not end");
}

static int explain(const struct said *s, int status, struct error *err)
{
    error_set(err, ERR_INTERNAL, "nitro-cli build-enclave ended with status %d%s%.400s", status,
              s->last[0] ? ": " : " and said nothing", s->last);
    if (s->no_space)
        return error_hint(err, "the engine's disk, or that of $TMPDIR, is full");
    if (strstr(s->last, "Create outputs:"))
        return error_hint(err,
                          "linuxkit stopped there for want of memory: give the engine's machine "
                          "more, several times the image");
    return -1;
}

static int run_container(struct work *w, struct said *s, struct error *err)
{
    AUTO_BUF struct buf body = BUF(65536);
    int status = 0;

    if (check_stopped(err) < 0 || format_container(w, &body, err) < 0 ||
        container_create(&w->engine, &body, w->container, err) < 0)
        return -1;
    log_info("build", "converting", kv_str("builder", w->builder),
             kv_str("container", w->container));
    if (container_start(&w->engine, w->container, err) < 0 || follow(w, s, err) < 0 ||
        wait_for_end(w, &status, err) < 0)
        return -1;
    return status == 0 ? 0 : explain(s, status, err);
}

/* ---- the result ---- */

static int check_pcr(const json_t *pcrs, const char *name, const uint8_t value[EIF_PCR_LEN],
                     struct error *err)
{
    const char *told = json_string_value(json_object_get(pcrs, name));
    uint8_t bytes[EIF_PCR_LEN];

    if (!told || hex_decode(slice_str(told), bytes, EIF_PCR_LEN) < 0)
        return error_set(err, ERR_INVALID, "nitro-cli printed no %s", name);
    if (memcmp(bytes, value, EIF_PCR_LEN) != 0)
        return error_set(err, ERR_INVALID, "the EIF does not have the %s that nitro-cli printed",
                         name);
    return 0;
}

static int copy(int from, int to, const char *name, struct error *err)
{
    ssize_t n;

    do
        n = sendfile(to, from, NULL, (size_t)64 << 20);
    while (n > 0 || (n < 0 && errno == EINTR));
    return n < 0 ? error_sys(err, errno, "writing %s", name) : 0;
}

static int take_result(const struct work *w, const struct said *s, int fd, const char *name,
                       struct eif_measurements *out, struct error *err)
{
    AUTO_FREE char *path = xasprintf("%s/application.eif", w->dir);
    AUTO_JSON json_t *doc = NULL;
    AUTO_FD int eif = -1;
    const json_t *pcrs;

    if (json_read_object(buf_slice(&s->json), &doc, NULL, err) < 0)
        return error_wrap(err, "what nitro-cli printed");
    pcrs = json_object_get(doc, "Measurements");
    if (eif_measure_file(path, out, err) < 0 || check_pcr(pcrs, "PCR0", out->pcr0, err) < 0 ||
        check_pcr(pcrs, "PCR1", out->pcr1, err) < 0 || check_pcr(pcrs, "PCR2", out->pcr2, err) < 0)
        return -1;
    if (w->in->signer && eif_sign_file(path, path, w->in->signer, out, err) < 0)
        return -1;
    eif = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (eif < 0)
        return error_sys(err, errno, "opening %s", path);
    return copy(eif, fd, name, err);
}

int nitro_build_eif(const struct nitro_build *in, int fd, const char *name,
                    struct eif_measurements *out, struct error *err)
{
    const struct sigaction ours = {.sa_handler = on_signal};
    struct sigaction old_int, old_term;
    struct work w = {.in = in, .mark = NITRO_BUILD_MARK_NONE};
    struct said s = {.json = BUF(STDOUT_MAX), .line = BUF(LINE_MAX_LEN - 1)};
    int rc = -1;

    sigaction(SIGINT, &ours, &old_int);
    sigaction(SIGTERM, &ours, &old_term);
    if (prepare(&w, err) == 0 && run_container(&w, &s, err) == 0)
        rc = take_result(&w, &s, fd, name, out, err);
    clean_up(&w);
    buf_free(&s.json);
    buf_free(&s.line);
    sigaction(SIGINT, &old_int, NULL);
    sigaction(SIGTERM, &old_term, NULL);
    if (stopped())
        raise(stop_signal);
    return rc;
}
