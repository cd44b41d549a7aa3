#include "vsock/log2.h"

#include <inttypes.h>
#include <jansson.h>

static json_t *load(struct slice line, struct error *err)
{
    json_t *o = NULL;

    if (line.len <= LOG2_LINE_MAX)
        o = json_loadb((const char *)line.ptr, line.len, JSON_REJECT_DUPLICATES, NULL);
    if (!o)
        error_set(err, ERR_INVALID, "not a log request or reply");
    return o;
}

static int get_count(const json_t *o, const char *key, uint64_t *out, struct error *err)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return error_set(err, ERR_INVALID, "\"%s\" is not a byte count", key);
    *out = (uint64_t)json_integer_value(v);
    return 0;
}

void log2_format_request(uint64_t offset, struct buf *out)
{
    if (buf_printf(out, "{\"offset\":%" PRIu64 "}\n", offset) < 0)
        abort(); /* a caller's buf without room for one line is a bug */
}

int log2_parse_request(struct slice line, uint64_t *offset, struct error *err)
{
    json_t *o = load(line, err);
    int rc = o ? get_count(o, "offset", offset, err) : -1;

    if (rc == 0 && json_object_size(o) != 1)
        rc = error_set(err, ERR_INVALID, "a log request has one member");
    json_decref(o);
    return rc;
}

void log2_format_reply(uint64_t offset, uint64_t dropped, struct buf *out)
{
    if (buf_printf(out, "{\"offset\":%" PRIu64 ",\"dropped\":%" PRIu64 "}\n", offset, dropped) < 0)
        abort(); /* a caller's buf without room for one line is a bug */
}

int log2_parse_reply(struct slice line, uint64_t asked, uint64_t *offset, uint64_t *dropped,
                     struct error *err)
{
    json_t *o = load(line, err);
    int rc = o ? 0 : -1;

    if (rc == 0 &&
        (get_count(o, "offset", offset, err) < 0 || get_count(o, "dropped", dropped, err) < 0))
        rc = -1;
    if (rc == 0 && (*offset < *dropped || *offset - *dropped != asked))
        rc = error_set(err, ERR_INVALID, "the log reply does not fit the request");
    json_decref(o);
    return rc;
}
