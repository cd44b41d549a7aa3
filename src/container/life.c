#include "container/life.h"

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "codec/json.h"
#include "container/labelled.h"
#include "container/progress.h"
#include "container/spec.h"

#include <stdio.h>

#define STALL_SECONDS 60L

bool container_id_valid(const char *id)
{
    size_t len = strlen(id);

    return len > 0 && len <= CONTAINER_ID_MAX && strspn(id, "0123456789abcdef") == len;
}

/* A call that must succeed with one of two statuses; the answer may be looked at. */
static int call(const struct container_engine *e, const char *method, const char *path,
                const char *json, long good, long also, const char *what,
                struct container_answer *a, struct error *err)
{
    if (container_call(e, method, path, json, a, err) < 0)
        return error_wrap(err, "%s", what);
    if (a->status == good || a->status == also)
        return 0;
    return container_refused(e, a, what, err);
}

static int call_container(const struct container_engine *e, const char *method, const char *id,
                          const char *rest, long good, long also, const char *what,
                          struct error *err)
{
    AUTO_FREE char *path = xasprintf("/containers/%s%s", id, rest);
    AUTO_CONTAINER_ANSWER struct container_answer a = {0};

    return call(e, method, path, NULL, good, also, what, &a, err);
}

int container_has_image(const struct container_engine *e, const char *image, struct error *err)
{
    AUTO_FREE char *name = container_escape(image);
    AUTO_FREE char *path = xasprintf("/images/%s/json", name);
    AUTO_CONTAINER_ANSWER struct container_answer a = {0};

    if (call(e, "GET", path, NULL, 200, 404, "looking for the image", &a, err) < 0)
        return -1;
    return a.status == 200;
}

/* ---- pull ---- */

/* X-Registry-Auth: base64 (URL alphabet) of a JSON object. */
static char *auth_header(const char *credentials)
{
    const char *colon = credentials ? strchr(credentials, ':') : NULL;
    AUTO_BUF struct buf json = BUF_SECRET((size_t)256 << 10);
    AUTO_BUF struct buf text = BUF_SECRET((size_t)512 << 10);
    struct json_writer w = {.out = &json};

    if (!colon)
        return NULL;
    json_put_object(&w);
    json_put_key(&w, "username");
    json_put_text(&w, slice_of(credentials, (size_t)(colon - credentials)));
    json_put_key(&w, "password");
    json_put_cstr(&w, colon + 1);
    json_put_object_end(&w);
    if (w.failed || base64_encode(buf_slice(&json), &text) < 0)
        return NULL;
    for (size_t i = 0; i < text.len; i++)
        text.ptr[i] = text.ptr[i] == '+' ? '-' : text.ptr[i] == '/' ? '_' : text.ptr[i];
    return xasprintf("X-Registry-Auth: %s", buf_cstr(&text));
}

int container_pull(const struct container_engine *e, const char *image, const char *credentials,
                   bool (*going)(void *arg, const char *line), void *arg, struct error *err)
{
    const char *slash = strrchr(image, '/');
    bool tagged = strchr(slash ? slash : image, ':') || strchr(image, '@');
    AUTO_FREE char *name = container_escape(image), *header = auth_header(credentials);
    AUTO_FREE char *path =
        xasprintf("/images/create?fromImage=%s%s", name, tagged ? "" : "&tag=latest");
    AUTO_FREE char *what = xasprintf("pulling %.300s", image);
    CLEANUP(container_stream_end) struct container_stream s = {0};
    struct container_progress p = CONTAINER_PROGRESS(going, arg);
    int rc = container_stream_begin(&s, e, "POST", path, header, container_progress_take, &p, err);

    if (rc == 0) {
        container_stream_set_stall(&s, STALL_SECONDS);
        rc = container_stream_run(&s, what, err);
        if (rc < 0 && p.fault.kind != ERR_NONE) {
            *err = p.fault;
            error_wrap(err, "%s", what);
        }
    }
    if (header)
        mem_wipe(header, strlen(header));
    container_progress_free(&p);
    return rc;
}

/* ---- one container ---- */

int container_create(const struct container_engine *e, struct buf *body,
                     char id[CONTAINER_ID_MAX + 1], struct error *err)
{
    AUTO_CONTAINER_ANSWER struct container_answer a = {0};
    AUTO_JSON json_t *doc = NULL;
    const char *text;
    json_t *warnings;

    if (call(e, "POST", "/containers/create", buf_cstr(body), 201, 200, "creating the container",
             &a, err) < 0)
        return -1;
    if (json_read_object(buf_slice(&a.body), &doc, NULL, err) < 0)
        return error_wrap(err, "creating the container: the engine's answer");
    text = json_string_value(json_object_get(doc, "Id"));
    if (!text || !container_id_valid(text))
        return error_set(err, ERR_NET, "creating the container: the engine gave no ID");
    snprintf(id, CONTAINER_ID_MAX + 1, "%s", text);
    warnings = json_object_get(doc, "Warnings");
    for (size_t i = 0; i < json_array_size(warnings) && i < 16; i++)
        if (json_is_string(json_array_get(warnings, i)))
            log_warn("engine", "says",
                     kv_str("warning", json_string_value(json_array_get(warnings, i))));
    return 0;
}

struct export
{
    int fd;
    uint64_t left;
    struct error *err;
    bool failed; /* *err is set */
};

static bool take_export(void *arg, struct slice bytes)
{
    struct export *x = arg;

    if (bytes.len > x->left) {
        error_set(x->err, ERR_LIMIT, "the engine sends more than it may");
        x->failed = true;
        return false;
    }
    x->left -= bytes.len;
    x->failed = fd_write_all(x->fd, bytes.ptr, bytes.len, "a working file", x->err) < 0;
    return !x->failed;
}

int container_export(const struct container_engine *e, const char *id, const char *path, int fd,
                     uint64_t max, struct error *err)
{
    AUTO_FREE char *name = container_escape(path);
    AUTO_FREE char *call_path = xasprintf("/containers/%s/archive?path=%s", id, name);
    AUTO_FREE char *what = xasprintf("reading %s in the container", path);
    CLEANUP(container_stream_end) struct container_stream s = {0};
    struct export x = {.fd = fd, .left = max, .err = err};
    struct error broken = {0};

    if (container_stream_begin(&s, e, "GET", call_path, NULL, take_export, &x, err) < 0)
        return -1;
    container_stream_set_stall(&s, 10);
    if (container_stream_run(&s, what, &broken) == 0)
        return 0;
    if (x.failed)
        return error_wrap(err, "%s", what);
    *err = broken;
    return -1;
}

int container_start(const struct container_engine *e, const char *id, struct error *err)
{
    return call_container(e, "POST", id, "/start", 204, 304, "starting the container", err);
}

int container_signal(const struct container_engine *e, const char *id, const char *signal,
                     struct error *err)
{
    AUTO_FREE char *rest = xasprintf("/kill?signal=%s", signal);

    if (call_container(e, "POST", id, rest, 204, 409, "signalling the container", err) == 0)
        return 0;
    return err->kind == ERR_NOT_FOUND ? 0 : -1;
}

int container_remove(const struct container_engine *e, const char *id, struct error *err)
{
    /* 409: its removal is in progress already. */
    return call_container(e, "DELETE", id, "?force=1&v=1", 204, 404, "removing the container",
                          err) < 0 &&
                   !strstr(err->msg, "already in progress")
               ? -1
               : 0;
}

int container_inspect(const struct container_engine *e, const char *id, struct container_state *out,
                      struct error *err)
{
    AUTO_FREE char *path = xasprintf("/containers/%s/json", id);
    AUTO_CONTAINER_ANSWER struct container_answer a = {0};
    AUTO_JSON json_t *doc = NULL;
    json_t *state;

    *out = (struct container_state){0};
    if (call(e, "GET", path, NULL, 200, 404, "looking at the container", &a, err) < 0)
        return -1;
    if (a.status == 404)
        return 0;
    if (json_read_object(buf_slice(&a.body), &doc, NULL, err) < 0)
        return error_wrap(err, "looking at the container: the engine's answer");
    state = json_object_get(doc, "State");
    out->there = true;
    out->running = json_is_true(json_object_get(state, "Running"));
    out->status = (int)json_number_value(json_object_get(state, "ExitCode")) & 0xff;
    return 0;
}

int container_list(const struct container_engine *e, struct container_row **out, size_t *count,
                   struct error *err)
{
    AUTO_JSON json_t *rows = container_rows(e, "/containers/json", CONTAINER_LABEL, err);

    if (!rows)
        return -1;
    *out = xcalloc(CONTAINER_LIST_MAX, sizeof(**out));
    *count = 0;
    for (size_t i = 0; i < json_array_size(rows) && *count < CONTAINER_LIST_MAX; i++) {
        const json_t *row = json_array_get(rows, i);
        const char *id = json_string_value(json_object_get(row, "Id"));
        const char *run =
            json_string_value(json_object_get(json_object_get(row, "Labels"), CONTAINER_LABEL));
        const char *state = json_string_value(json_object_get(row, "State"));
        struct container_row *r = &(*out)[*count];

        if (!id || !container_id_valid(id))
            continue;
        snprintf(r->id, sizeof(r->id), "%s", id);
        snprintf(r->run, sizeof(r->run), "%s", run && strlen(run) < sizeof(r->run) ? run : "");
        r->running = !state || (strcmp(state, "exited") != 0 && strcmp(state, "dead") != 0);
        ++*count;
    }
    return 0;
}
