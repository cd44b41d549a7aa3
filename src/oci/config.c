#include "oci/config.h"

#include "base/strv.h"

#include <jansson.h>

json_t *oci_json_parse(struct slice text, const char *name, struct error *err)
{
    json_error_t why;
    json_t *doc;

    doc = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, &why);
    if (!doc)
        error_set(err, ERR_INVALID, "%s: not good JSON: line %d, column %d: %s", name, why.line,
                  why.column, why.text);
    return doc;
}

const char *oci_json_str(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

void image_config_free(struct image_config *c)
{
    free(c->architecture);
    free(c->os);
    free(c->diff_ids);
    strv_free(c->entrypoint);
    strv_free(c->cmd);
    strv_free(c->env);
    free(c->workdir);
    free(c->user);
    strv_free(c->exposed_ports);
    strv_free(c->volumes);
    free(c->stop_signal);
    *c = (struct image_config){0};
}

/* A list of strings; null is empty, and a lone string is a list of one (old Docker wrote that). */
static int get_list(const json_t *object, const char *key, char ***out, struct error *err)
{
    const json_t *v = json_object_get(object, key);
    size_t count = json_array_size(v);
    char **list;

    if (!v || json_is_null(v))
        return 0;
    if (!json_is_array(v) && !json_is_string(v))
        return error_set(err, ERR_INVALID, "%s: must be a list of strings", key);
    if (count > LAUNCH_LIST_MAX)
        return error_set(err, ERR_LIMIT, "%s: more than %d entries", key, LAUNCH_LIST_MAX);
    for (size_t i = 0; i < count; i++)
        if (!json_is_string(json_array_get(v, i)))
            return error_set(err, ERR_INVALID, "%s: must be a list of strings", key);
    if (json_is_string(v)) {
        strv_add(out, json_string_value(v));
        return 0;
    }
    *out = list = xcalloc(count + 1, sizeof(*list));
    for (size_t i = 0; i < count; i++)
        list[i] = xstrdup(json_string_value(json_array_get(v, i)));
    return 0;
}

static int get_string(const json_t *object, const char *key, char **out, struct error *err)
{
    const json_t *v = json_object_get(object, key);

    if (v && !json_is_null(v) && !json_is_string(v))
        return error_set(err, ERR_INVALID, "%s: must be a string", key);
    *out = xstrdup(json_is_string(v) ? json_string_value(v) : "");
    return 0;
}

/* The keys of an object: ExposedPorts and Volumes are sets written so. */
static int get_keys(const json_t *object, const char *key, char ***out, struct error *err)
{
    json_t *v = json_object_get(object, key);
    const char *name;
    json_t *ignored;

    if (!v || json_is_null(v))
        return 0;
    if (!json_is_object(v))
        return error_set(err, ERR_INVALID, "%s: must be an object", key);
    if (json_object_size(v) > LAUNCH_LIST_MAX)
        return error_set(err, ERR_LIMIT, "%s: more than %d entries", key, LAUNCH_LIST_MAX);
    json_object_foreach(v, name, ignored) strv_add(out, name);
    return 0;
}

static int read_object(const json_t *o, struct image_config *c, struct error *err)
{
    const json_t *check = json_object_get(o, "Healthcheck");
    const json_t *test = json_object_get(check, "Test");
    const char *first = json_string_value(json_array_get(test, 0));

    if (o && !json_is_object(o) && !json_is_null(o))
        return error_set(err, ERR_INVALID, "config: must be an object");
    if (get_list(o, "Entrypoint", &c->entrypoint, err) < 0 ||
        get_list(o, "Cmd", &c->cmd, err) < 0 || get_list(o, "Env", &c->env, err) < 0 ||
        get_string(o, "WorkingDir", &c->workdir, err) < 0 ||
        get_string(o, "User", &c->user, err) < 0 ||
        get_keys(o, "ExposedPorts", &c->exposed_ports, err) < 0 ||
        get_keys(o, "Volumes", &c->volumes, err) < 0 ||
        get_string(o, "StopSignal", &c->stop_signal, err) < 0)
        return -1;
    c->healthcheck = json_array_size(test) > 0 && first && strcmp(first, "NONE") != 0;
    return 0;
}

static int read_diff_ids(const json_t *doc, struct image_config *c, struct error *err)
{
    const json_t *rootfs = json_object_get(doc, "rootfs");
    const json_t *ids = json_object_get(rootfs, "diff_ids");
    size_t count = json_array_size(ids);

    if (!json_is_array(ids) && !json_is_null(ids))
        return error_set(err, ERR_INVALID,
                         "rootfs.diff_ids: missing, so this is not the "
                         "configuration of a container image");
    if (count > CONFIG_LAYERS_MAX)
        return error_set(err, ERR_LIMIT, "rootfs.diff_ids: more than %d layers", CONFIG_LAYERS_MAX);
    c->diff_ids = xcalloc(count, sizeof(*c->diff_ids));
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(ids, i));

        if (!text)
            return error_set(err, ERR_INVALID, "rootfs.diff_ids: must be a list of digests");
        if (digest_parse(slice_str(text), &c->diff_ids[i], err) < 0)
            return error_wrap(err, "rootfs.diff_ids");
    }
    c->diff_id_count = count;
    return 0;
}

static int read_whole(const json_t *doc, struct image_config *c, struct error *err)
{
    if (!json_is_object(doc))
        return error_set(err, ERR_INVALID, "must be an object");
    if (get_string(doc, "architecture", &c->architecture, err) < 0 ||
        get_string(doc, "os", &c->os, err) < 0 || read_diff_ids(doc, c, err) < 0)
        return -1;
    return read_object(json_object_get(doc, "config"), c, err);
}

static int parse(struct slice json, const char *name, bool whole, struct image_config *out,
                 struct error *err)
{
    CLEANUP(image_config_free) struct image_config c = {0};
    json_t *doc = oci_json_parse(json, name, err);
    int rc;

    if (!doc)
        return -1;
    if (!whole && json_is_object(json_object_get(doc, "config")) &&
        json_object_get(doc, "rootfs")) {
        json_decref(doc);
        error_set(err, ERR_INVALID, "%s: holds a whole image configuration", name);
        return error_hint(err, "put only its `config` object there (Entrypoint, Cmd, Env, ...)");
    }
    if (whole)
        rc = read_whole(doc, &c, err);
    else if (!json_is_object(doc))
        rc = error_set(err, ERR_INVALID, "must be an object");
    else
        rc = read_object(doc, &c, err);
    json_decref(doc);
    if (rc < 0)
        return error_wrap(err, "%s", name);
    *out = c;
    c = (struct image_config){0};
    return 0;
}

int image_config_parse(struct slice json, const char *name, struct image_config *out,
                       struct error *err)
{
    return parse(json, name, true, out, err);
}

int image_config_parse_object(struct slice json, const char *name, struct image_config *out,
                              struct error *err)
{
    return parse(json, name, false, out, err);
}
