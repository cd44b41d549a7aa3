#include "codec/egress_frame.h"

#include "codec/json.h"

#include <errno.h>

static const char *const kind_names[] = {
    [EGRESS_OTHER] = "other",     [EGRESS_DNS] = "dns",
    [EGRESS_REFUSED] = "refused", [EGRESS_UNREACHABLE] = "unreachable",
    [EGRESS_TIMEOUT] = "timeout", [EGRESS_POLICY] = "policy",
};

const char *egress_kind_name(enum egress_kind kind)
{
    return kind_names[kind];
}

enum egress_kind egress_kind_of_errno(int sys)
{
    switch (sys) {
    case ECONNREFUSED:
    case ECONNRESET:
        return EGRESS_REFUSED;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
        return EGRESS_UNREACHABLE;
    case ETIMEDOUT:
        return EGRESS_TIMEOUT;
    default:
        return EGRESS_OTHER;
    }
}

int egress_frame_length(struct slice in, size_t *len, struct error *err)
{
    uint32_t announced;

    if (in.len < 4)
        return 0;
    announced = get_le32(in.ptr);
    if (announced == 0 || announced > EGRESS_FRAME_MAX)
        return error_set(err, ERR_LIMIT, "an egress frame announces %u bytes, allowed are 1 to %d",
                         announced, EGRESS_FRAME_MAX);
    *len = announced;
    return 1;
}

/* Puts the length in front of what `w` wrote after `start` + 4. */
static int finish_frame(struct json_writer *w, size_t start)
{
    size_t len = w->out->len - start - 4;

    if (w->failed || len > EGRESS_FRAME_MAX) {
        w->out->len = start;
        return -1;
    }
    put_le32(w->out->ptr + start, (uint32_t)len);
    return 0;
}

int egress_request_write(const char *host, uint16_t port, struct buf *out)
{
    struct json_writer w = {.out = out};
    size_t start = out->len;

    if (buf_append(out, "\0\0\0\0", 4) < 0)
        return -1;
    json_put_object(&w);
    json_put_key(&w, "host");
    json_put_cstr(&w, host);
    json_put_key(&w, "port");
    json_put_uint(&w, port);
    json_put_object_end(&w);
    return finish_frame(&w, start);
}

int egress_reply_write(const struct egress_reply *reply, struct buf *out)
{
    struct json_writer w = {.out = out};
    size_t start = out->len;

    if (buf_append(out, "\0\0\0\0", 4) < 0)
        return -1;
    if (reply->ok) {
        json_put_cstr(&w, "Ok");
        return finish_frame(&w, start);
    }
    json_put_object(&w);
    json_put_key(&w, "Err");
    json_put_object(&w);
    json_put_key(&w, "os_code");
    json_put_int(&w, reply->os_code);
    json_put_key(&w, "message");
    json_put_cstr(&w, reply->message);
    json_put_key(&w, "kind");
    json_put_cstr(&w, kind_names[reply->kind]);
    json_put_object_end(&w);
    json_put_object_end(&w);
    return finish_frame(&w, start);
}

int egress_request_parse(struct slice text, struct egress_request *out, struct error *err)
{
    AUTO_JSON json_t *root = NULL;
    const json_t *host;
    uint64_t port;

    if (json_read_object(text, &root, NULL, err) < 0)
        return error_wrap(err, "egress request");
    host = json_object_get(root, "host");
    if (!json_is_string(host) || json_string_length(host) > EGRESS_HOST_MAX ||
        strlen(json_string_value(host)) != json_string_length(host))
        return error_set(err, ERR_INVALID,
                         "egress request: \"host\" must be a string of at most "
                         "%d bytes",
                         EGRESS_HOST_MAX);
    if (json_member_u64(text, "port", UINT16_MAX, &port) != 1)
        return error_set(err, ERR_INVALID, "egress request: \"port\" must be a 16-bit number");
    memcpy(out->host, json_string_value(host), json_string_length(host) + 1);
    out->port = (uint16_t)port;
    return 0;
}

/* The text reaches the app and logs, and the host wrote it. */
static void copy_printable(const char *text, char out[EGRESS_MESSAGE_MAX + 1])
{
    size_t n = 0;

    for (; n < EGRESS_MESSAGE_MAX && text[n]; n++)
        out[n] = text[n] >= 0x20 && text[n] < 0x7f ? text[n] : '?';
    out[n] = '\0';
}

int egress_reply_parse(struct slice text, struct egress_reply *out, struct error *err)
{
    AUTO_JSON json_t *root = NULL;
    const json_t *e, *kind;
    struct slice raw;
    uint64_t code = 0;

    *out = (struct egress_reply){0};
    if (slice_equal_str(text, "\"Ok\"")) {
        out->ok = true;
        return 0;
    }
    if (json_read_object(text, &root, NULL, err) < 0)
        return error_wrap(err, "egress reply");
    e = json_object_get(root, "Err");
    if (!json_is_object(e) || !json_member_raw(text, "Err", &raw))
        return error_set(err, ERR_INVALID, "egress reply: neither \"Ok\" nor \"Err\"");
    if (json_member_u64(raw, "os_code", 4095, &code) == 1)
        out->os_code = (int)code;
    if (json_is_string(json_object_get(e, "message")))
        copy_printable(json_string_value(json_object_get(e, "message")), out->message);
    out->kind = egress_kind_of_errno(out->os_code);
    kind = json_object_get(e, "kind");
    for (size_t i = 0; json_is_string(kind) && i < ARRAY_LEN(kind_names); i++)
        if (strcmp(json_string_value(kind), kind_names[i]) == 0)
            out->kind = (enum egress_kind)i;
    return 0;
}
