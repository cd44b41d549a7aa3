#include "codec/launch.h"

#include "base/strv.h"
#include "base/text.h"

#include <jansson.h>

void launch_free(struct launch *l)
{
    strv_free(l->argv);
    strv_free(l->env);
    free(l->cwd);
    free(l->user);
    *l = (struct launch){0};
}

static int check_list(char *const *list, const char *what, struct error *err)
{
    size_t count = strv_len(list);

    if (count > LAUNCH_LIST_MAX)
        return error_set(err, ERR_LIMIT, "%zu %ss: more than %d", count, what, LAUNCH_LIST_MAX);
    for (size_t i = 0; i < count; i++)
        if (strlen(list[i]) > LAUNCH_STRING_MAX)
            return error_set(err, ERR_LIMIT, "%s %zu: longer than %d bytes", what, i + 1,
                             LAUNCH_STRING_MAX);
    return 0;
}

int launch_check(const struct launch *l, struct error *err)
{
    if (!l->argv || !l->argv[0])
        return error_set(err, ERR_INVALID, "there is no program to start");
    if (l->argv[0][0] == '\0')
        return error_set(err, ERR_INVALID, "the program to start has an empty name");
    if (check_list(l->argv, "argument", err) < 0 ||
        check_list(l->env, "environment entry", err) < 0)
        return -1;
    for (size_t i = 0; l->env && l->env[i]; i++) {
        const char *equals = strchr(l->env[i], '=');

        if (!equals || equals == l->env[i])
            return error_set(err, ERR_INVALID, "environment entry %.60s: must be NAME=VALUE",
                             l->env[i]);
    }
    if (!l->cwd || l->cwd[0] != '/' || strlen(l->cwd) > 4095)
        return error_set(err, ERR_INVALID,
                         "working directory %.60s: must be an absolute path of at most 4095 bytes",
                         l->cwd ? l->cwd : "");
    if (!l->user || strlen(l->user) > 255)
        return error_set(err, ERR_INVALID, "user: must be a text of at most 255 bytes");
    return 0;
}

static json_t *list_to_json(char *const *list, const char *what, struct error *err)
{
    json_t *array = json_array();

    for (size_t i = 0; list && list[i]; i++) {
        if (json_array_append_new(array, json_string(list[i])) < 0) {
            error_set(err, ERR_INVALID, "%s %zu is not UTF-8, which a launch file cannot hold",
                      what, i + 1);
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

int launch_to_json(const struct launch *l, struct buf *out, struct error *err)
{
    AUTO_FREE char *text = NULL;
    json_t *argv, *env, *doc;

    if (launch_check(l, err) < 0)
        return -1;
    if (!utf8_valid(slice_str(l->cwd)) || !utf8_valid(slice_str(l->user)))
        return error_set(err, ERR_INVALID, "the working directory or user name is not UTF-8");
    argv = list_to_json(l->argv, "argument", err);
    if (!argv)
        return -1;
    env = list_to_json(l->env, "environment entry", err);
    if (!env) {
        json_decref(argv);
        return -1;
    }
    doc = json_pack("{s:o,s:o,s:s,s:s}", "argv", argv, "env", env, "cwd", l->cwd, "user", l->user);
    /* jansson keeps the order in which keys were added. */
    text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    json_decref(doc);
    if (!text)
        return error_set(err, ERR_INTERNAL, "writing the launch file failed");
    if (strlen(text) > LAUNCH_JSON_MAX || buf_append_str(out, text) < 0)
        return error_set(err, ERR_LIMIT, "the launch file would be larger than %zu bytes",
                         LAUNCH_JSON_MAX);
    return 0;
}

static int list_from_json(const json_t *array, const char *key, char ***out, struct error *err)
{
    size_t count = json_array_size(array);

    if (!json_is_array(array))
        return error_set(err, ERR_INVALID, "%s: must be a list of strings", key);
    if (count > LAUNCH_LIST_MAX)
        return error_set(err, ERR_LIMIT, "%s: more than %d entries", key, LAUNCH_LIST_MAX);
    for (size_t i = 0; i < count; i++)
        if (!json_is_string(json_array_get(array, i)))
            return error_set(err, ERR_INVALID, "%s: must be a list of strings", key);
    *out = xcalloc(count + 1, sizeof(**out));
    for (size_t i = 0; i < count; i++)
        (*out)[i] = xstrdup(json_string_value(json_array_get(array, i)));
    return 0;
}

static int from_object(const json_t *doc, struct launch *l, struct error *err)
{
    const json_t *cwd = json_object_get(doc, "cwd"), *user = json_object_get(doc, "user");

    if (!json_is_object(doc) || json_object_size(doc) != 4)
        return error_set(err, ERR_INVALID, "must be an object of argv, env, cwd and user");
    if (!json_is_string(cwd) || !json_is_string(user))
        return error_set(err, ERR_INVALID, "cwd and user: must be strings");
    if (list_from_json(json_object_get(doc, "argv"), "argv", &l->argv, err) < 0 ||
        list_from_json(json_object_get(doc, "env"), "env", &l->env, err) < 0)
        return -1;
    l->cwd = xstrdup(json_string_value(cwd));
    l->user = xstrdup(json_string_value(user));
    return launch_check(l, err);
}

int launch_from_json(struct slice text, struct launch *out, struct error *err)
{
    AUTO_LAUNCH struct launch l = {0};
    json_error_t why;
    json_t *doc;
    int rc;

    if (text.len > LAUNCH_JSON_MAX)
        return error_set(err, ERR_LIMIT, "launch file: larger than %zu bytes", LAUNCH_JSON_MAX);
    doc = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, &why);
    if (!doc)
        return error_set(err, ERR_INVALID, "launch file: line %d, column %d: %s", why.line,
                         why.column, why.text);
    rc = from_object(doc, &l, err);
    json_decref(doc);
    if (rc < 0)
        return error_wrap(err, "launch file");
    *out = l;
    l = (struct launch){0};
    return 0;
}
