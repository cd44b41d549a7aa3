#include "api/fields.h"

#include "codec/json.h"

#include <stdarg.h>
#include <stdio.h>

int refuse(struct api_request *req, const char *code, const char *fmt, ...)
{
    char message[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    api_fail(req, 400, code, message);
    return -1;
}

int read_object(struct api_request *req, struct slice body, json_t **out)
{
    enum json_problem problem;
    struct error err = {0};

    if (json_read_object(body, out, &problem, &err) < 0)
        return refuse(req, json_problem_code(problem), "%s", err.msg);
    return 0;
}

/* 1 and *out for a value that is there and not null. */
static int find(struct api_request *req, const json_t *object, const char *name,
                enum field_need need, const char *type, const json_t **out)
{
    *out = json_object_get(object, name);
    if (!*out && need == FIELD_REQUIRED)
        return refuse(req, "missing_field", "%s is missing", name);
    if (!*out || (json_is_null(*out) && need == FIELD_NULLABLE))
        return 0;
    if (json_is_null(*out))
        return refuse(req, "invalid_type", "%s must be %s, not null", name, type);
    return 1;
}

int field_string(struct api_request *req, const json_t *object, const char *name,
                 enum field_need need, struct slice *out)
{
    const json_t *value;
    int rc = find(req, object, name, need, "a string", &value);

    if (rc != 1)
        return rc;
    if (!json_is_string(value))
        return refuse(req, "invalid_type", "%s must be a string", name);
    *out = slice_of(json_string_value(value), json_string_length(value));
    return 1;
}

int field_bool(struct api_request *req, const json_t *object, const char *name,
               enum field_need need, bool *out)
{
    const json_t *value;
    int rc = find(req, object, name, need, "true or false", &value);

    if (rc != 1)
        return rc;
    if (!json_is_boolean(value))
        return refuse(req, "invalid_type", "%s must be true or false", name);
    *out = json_is_true(value);
    return 1;
}

int field_object(struct api_request *req, const json_t *object, const char *name,
                 enum field_need need, const json_t **out)
{
    const json_t *value;
    int rc = find(req, object, name, need, "an object", &value);

    if (rc != 1)
        return rc;
    if (!json_is_object(value))
        return refuse(req, "invalid_type", "%s must be an object", name);
    *out = value;
    return 1;
}

int field_array(struct api_request *req, const json_t *object, const char *name,
                enum field_need need, const json_t **out)
{
    const json_t *value;
    int rc = find(req, object, name, need, "an array", &value);

    if (rc != 1)
        return rc;
    if (!json_is_array(value))
        return refuse(req, "invalid_type", "%s must be an array", name);
    *out = value;
    return 1;
}
