#include "eif/metadata.h"

#include "base/text.h"

#include <time.h>

#define YEAR_9999_END INT64_C(253402300799)

static void cleanup_json(json_t **j)
{
    json_decref(*j);
}

static int append_json(struct buf *out, const json_t *value, struct error *err)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS);
    int rc = text ? buf_append_str(out, text) : -1;

    free(text);
    return rc < 0 ? error_set(err, ERR_LIMIT, "the image's metadata is too large") : 0;
}

/* `"key":"value"` with the given byte in front. */
static int append_member(struct buf *out, const char *before, const char *key, const char *value,
                         struct error *err)
{
    CLEANUP(cleanup_json) json_t *string = json_string(value ? value : "");

    if (!string)
        return error_set(err, ERR_INVALID, "the image's metadata: %s is not UTF-8", key);
    if (buf_printf(out, "%s\"%s\":", before, key) < 0)
        return error_set(err, ERR_LIMIT, "the image's metadata is too large");
    return append_json(out, string, err);
}

static int append_text(struct buf *out, const char *key, struct slice text, const char *otherwise,
                       struct error *err)
{
    CLEANUP(cleanup_json) json_t *value = NULL;
    json_error_t why;

    if (buf_printf(out, ",\"%s\":", key) < 0 ||
        (text.len == 0 && buf_append_str(out, otherwise) < 0))
        return error_set(err, ERR_LIMIT, "the image's metadata is too large");
    if (text.len == 0)
        return 0;
    value = json_loadb((const char *)text.ptr, text.len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES,
                       &why);
    if (!value)
        return error_set(err, ERR_INVALID, "the image's metadata: %s is not JSON: line %d: %s", key,
                         why.line, why.text);
    return append_json(out, value, err);
}

static void format_time(int64_t seconds, char out[32])
{
    time_t t = (time_t)(seconds < 0 ? 0 : seconds > YEAR_9999_END ? YEAR_9999_END : seconds);
    struct tm tm;

    gmtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%S+00:00", &tm);
}

int eif_metadata_build(const struct eif_metadata *m, struct buf *out, struct error *err)
{
    char build_time[32];

    if (m->custom.len > EIF_CUSTOM_METADATA_MAX)
        return error_set(err, ERR_LIMIT,
                         "the custom metadata has %zu bytes; the limit of the platform's tools is "
                         "%d",
                         m->custom.len, EIF_CUSTOM_METADATA_MAX);
    format_time(m->build_time, build_time);
    if (append_member(out, "{", "ImageName", m->image_name, err) < 0 ||
        append_member(out, ",", "ImageVersion", m->image_version, err) < 0 ||
        append_member(out, ",\"BuildMetadata\":{", "BuildTime", build_time, err) < 0 ||
        append_member(out, ",", "BuildTool", m->build_tool ? m->build_tool : "capsule", err) < 0 ||
        append_member(out, ",", "BuildToolVersion", m->build_tool_version, err) < 0 ||
        append_member(out, ",", "OperatingSystem", m->operating_system, err) < 0 ||
        append_member(out, ",", "KernelVersion", m->kernel_version, err) < 0)
        return -1;
    if (buf_append_str(out, "}") < 0)
        return error_set(err, ERR_LIMIT, "the image's metadata is too large");
    if (append_text(out, "DockerInfo", m->docker_info, "{}", err) < 0 ||
        append_text(out, "CustomMetadata", m->custom, "null", err) < 0)
        return -1;
    if (buf_append_str(out, "}") < 0)
        return error_set(err, ERR_LIMIT, "the image's metadata is too large");
    return 0;
}

json_t *eif_metadata_parse(struct slice text, struct error *err)
{
    json_error_t why;
    json_t *value;

    if (text.len > EIF_METADATA_MAX) {
        error_set(err, ERR_LIMIT, "the image's metadata has %zu bytes, the limit is %d", text.len,
                  EIF_METADATA_MAX);
        return NULL;
    }
    value = json_loadb(text.len ? (const char *)text.ptr : "", text.len, 0, &why);
    if (!value || !json_is_object(value)) {
        error_set(err, ERR_INVALID, "the image's metadata is not a JSON object%s%s",
                  value ? "" : ": ", value ? "" : why.text);
        json_decref(value);
        return NULL;
    }
    return value;
}
