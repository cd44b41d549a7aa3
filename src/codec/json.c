#include "codec/json.h"

#include "base/text.h"

#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>

const char *json_problem_code(enum json_problem problem)
{
    switch (problem) {
    case JSON_WRONG_TYPE:
        return "invalid_type";
    case JSON_DUPLICATE:
        return "duplicate_field";
    case JSON_OUT_OF_RANGE:
        return "invalid_value";
    default:
        return "invalid_json";
    }
}

/*
 * Bounds that jansson does not have, checked before it builds a tree. Broken JSON passes here and
 * fails there; the counts are only right for what is well-formed.
 */
static int check_bounds(struct slice text, struct error *err)
{
    size_t depth = 0, values = 0;
    bool quoted = false;

    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];

        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
            continue;
        }
        if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            values++;
            if (++depth > JSON_NESTING_MAX)
                return error_set(err, ERR_LIMIT, "JSON is nested deeper than %d levels",
                                 JSON_NESTING_MAX);
        } else if (c == '}' || c == ']') {
            depth -= depth > 0;
        } else if (c == ',') {
            values++;
        }
    }
    if (values > JSON_VALUES_MAX)
        return error_set(err, ERR_LIMIT, "JSON has more than %d values", JSON_VALUES_MAX);
    return 0;
}

static void wipe_and_free(void *ptr)
{
    if (ptr)
        mem_wipe(ptr, malloc_usable_size(ptr));
    free(ptr);
}

/*
 * jansson copies strings more than once, and requests hold plaintext. Its blocks stay malloc()'s,
 * so values made before, and texts that callers free(), are none the worse.
 */
static void wipe_trees(void)
{
    json_set_alloc_funcs(malloc, wipe_and_free);
}

static enum json_problem problem_of(const json_error_t *e)
{
    switch (json_error_code(e)) {
    case json_error_duplicate_key:
        return JSON_DUPLICATE;
    case json_error_numeric_overflow:
        return JSON_OUT_OF_RANGE;
    default:
        return JSON_INVALID;
    }
}

int json_read_object(struct slice text, json_t **out, enum json_problem *problem, struct error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    enum json_problem ignored = JSON_INVALID;
    json_error_t e;
    json_t *root;

    problem = problem ? problem : &ignored;
    *problem = JSON_INVALID;
    if (text.len == 0)
        return error_set(err, ERR_INVALID, "JSON is empty");
    if (check_bounds(text, err) < 0)
        return -1;
    pthread_once(&once, wipe_trees);
    /* Integers up to 2^64 - 1 are legal and beyond jansson's; as reals they pass, and their digits
       are taken from the source. */
    root = json_loadb(
        (const char *)text.ptr, text.len,
        JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &e);
    if (!root) {
        *problem = problem_of(&e);
        /* jansson's own text quotes input at length, so only its position is passed on */
        mem_wipe(e.text, sizeof(e.text));
        return error_set(err, ERR_INVALID, "JSON is %s at line %d column %d",
                         *problem == JSON_DUPLICATE      ? "repeating a member name"
                         : *problem == JSON_OUT_OF_RANGE ? "holding a number out of range"
                                                         : "malformed",
                         e.line, e.column);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        *problem = JSON_WRONG_TYPE;
        return error_set(err, ERR_INVALID, "JSON must be an object");
    }
    *problem = JSON_OK;
    *out = root;
    return 0;
}

void json_drop(json_t **value)
{
    json_decref(*value);
}

/* ---- source text ---- */

static void skip_space(struct reader *r)
{
    while (r->pos < r->end && strchr(" \t\r\n", *r->pos) && *r->pos)
        r->pos++;
}

/* At the opening quote; afterwards behind the closing one. The text between comes out. */
static bool take_string(struct reader *r, struct slice *out)
{
    const uint8_t *start = ++r->pos;

    while (r->pos < r->end && *r->pos != '"')
        r->pos += *r->pos == '\\' && r->pos + 1 < r->end ? 2 : 1;
    if (r->pos >= r->end)
        return false;
    *out = slice_of(start, (size_t)(r->pos - start));
    r->pos++;
    return true;
}

static bool take_value(struct reader *r, struct slice *out)
{
    const uint8_t *start = r->pos;
    struct slice dummy;
    size_t depth = 0;

    while (r->pos < r->end) {
        uint8_t c = *r->pos;

        if (c == '"') {
            if (!take_string(r, &dummy))
                return false;
        } else if (depth == 0 && (c == ',' || c == '}' || c == ']')) {
            break;
        } else {
            depth += c == '{' || c == '[';
            depth -= c == '}' || c == ']';
            r->pos++;
        }
    }
    *out = slice_of(start, (size_t)(r->pos - start));
    while (out->len && strchr(" \t\r\n", out->ptr[out->len - 1]))
        out->len--;
    return out->len > 0;
}

struct json_members json_members_of(struct slice object)
{
    struct json_members it = {reader_of(object)};

    skip_space(&it.r);
    if (it.r.pos < it.r.end && *it.r.pos == '{')
        it.r.pos++;
    else
        it.r.pos = it.r.end;
    return it;
}

bool json_members_next(struct json_members *it, struct slice *name, struct slice *value)
{
    struct reader *r = &it->r;

    skip_space(r);
    if (r->pos < r->end && *r->pos == ',') {
        r->pos++;
        skip_space(r);
    }
    if (r->pos >= r->end || *r->pos != '"' || !take_string(r, name))
        return false;
    skip_space(r);
    if (r->pos >= r->end || *r->pos != ':')
        return false;
    r->pos++;
    skip_space(r);
    return take_value(r, value);
}

static uint32_t hex4(const uint8_t *p)
{
    uint8_t raw[2] = {0};

    return hex_decode(slice_of(p, 4), raw, 2) < 0 ? 0xfffd : get_be16(raw);
}

static size_t utf8_put(uint32_t code, uint8_t out[4])
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (uint8_t)(0xc0 | code >> 6);
        out[1] = (uint8_t)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (uint8_t)(0xe0 | code >> 12);
        out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | code >> 18);
    out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (code & 0x3f));
    return 4;
}

/* Next character of string text as UTF-8 bytes (one byte at a time when it is not escaped). */
static size_t next_char(struct reader *r, uint8_t out[4])
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    const char *at;
    uint32_t code, low;

    out[0] = *r->pos++;
    if (out[0] != '\\' || r->pos >= r->end)
        return 1;
    out[0] = *r->pos++;
    if (out[0] != 'u') {
        at = strchr(from, out[0]);
        if (at && *at)
            out[0] = (uint8_t)to[at - from];
        return 1;
    }
    if (reader_left(r) < 4)
        return 1;
    code = hex4(r->pos);
    r->pos += 4;
    if (code >> 10 == 0xd800 >> 10 && reader_left(r) >= 6) {
        low = hex4(r->pos + 2);
        r->pos += 6;
        code = 0x10000 + ((code & 0x3ff) << 10) + (low & 0x3ff);
    }
    return utf8_put(code, out);
}

bool json_name_is(struct slice name, const char *want)
{
    struct reader r = reader_of(name);
    uint8_t bytes[4];
    size_t left = strlen(want), len;

    while (r.pos < r.end) {
        len = next_char(&r, bytes);
        if (len > left || memcmp(bytes, want, len) != 0)
            return false;
        want += len;
        left -= len;
    }
    return left == 0;
}

bool json_member_raw(struct slice object, const char *name, struct slice *value)
{
    struct json_members it = json_members_of(object);
    struct slice key, text;

    while (json_members_next(&it, &key, &text)) {
        if (json_name_is(key, name)) {
            *value = text;
            return true;
        }
    }
    return false;
}

int json_member_u64(struct slice object, const char *name, uint64_t max, uint64_t *out)
{
    struct slice text;

    if (!json_member_raw(object, name, &text))
        return 0;
    return parse_u64(text, max, out) < 0 ? -1 : 1;
}

/* ---- writing ---- */

static void put(struct json_writer *w, const void *ptr, size_t len)
{
    if (len && !w->failed && buf_append(w->out, ptr, len) < 0)
        w->failed = true;
}

/* Whatever comes next is a value; the comma before it is written here. */
static void before_value(struct json_writer *w)
{
    if (w->comma)
        put(w, ",", 1);
    w->comma = true;
}

static void put_char(struct json_writer *w, uint8_t c)
{
    static const char short_forms[0x20] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    char text[8] = {'\\', (char)c};

    if (c == '"' || c == '\\') {
        put(w, text, 2);
    } else if (c >= 0x20) {
        put(w, &c, 1);
    } else if (short_forms[c]) {
        text[1] = short_forms[c];
        put(w, text, 2);
    } else {
        put(w, text, (size_t)snprintf(text, sizeof(text), "\\u%04x", c));
    }
}

static void put_quoted(struct json_writer *w, struct slice text)
{
    size_t start = 0;

    put(w, "\"", 1);
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        put(w, text.ptr + start, i - start);
        put_char(w, c);
        start = i + 1;
    }
    put(w, text.ptr + start, text.len - start);
    put(w, "\"", 1);
}

void json_put_object(struct json_writer *w)
{
    before_value(w);
    put(w, "{", 1);
    w->comma = false;
}

void json_put_object_end(struct json_writer *w)
{
    put(w, "}", 1);
    w->comma = true;
}

void json_put_array(struct json_writer *w)
{
    before_value(w);
    put(w, "[", 1);
    w->comma = false;
}

void json_put_array_end(struct json_writer *w)
{
    put(w, "]", 1);
    w->comma = true;
}

void json_put_key(struct json_writer *w, const char *key)
{
    before_value(w);
    put_quoted(w, slice_str(key));
    put(w, ":", 1);
    w->comma = false;
}

void json_put_text(struct json_writer *w, struct slice text)
{
    before_value(w);
    put_quoted(w, text);
}

void json_put_cstr(struct json_writer *w, const char *text)
{
    json_put_text(w, slice_str(text));
}

void json_put_hex(struct json_writer *w, const char *prefix, struct slice bytes)
{
    uint8_t *to;

    before_value(w);
    put(w, "\"", 1);
    put(w, prefix, strlen(prefix));
    to = w->failed || bytes.len > SIZE_MAX / 2 ? NULL : buf_reserve(w->out, 2 * bytes.len);
    if (!to) {
        w->failed = true;
        return;
    }
    hex_encode(bytes, (char *)to); /* a buf always has room for the NUL */
    w->out->len += 2 * bytes.len;
    put(w, "\"", 1);
}

void json_put_base64(struct json_writer *w, struct slice bytes)
{
    before_value(w);
    put(w, "\"", 1);
    if (!w->failed && base64_encode(bytes, w->out) < 0)
        w->failed = true;
    put(w, "\"", 1);
}

static void put_word(struct json_writer *w, const char *word)
{
    before_value(w);
    put(w, word, strlen(word));
}

void json_put_uint(struct json_writer *w, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    put_word(w, text);
}

void json_put_int(struct json_writer *w, int64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRId64, value);
    put_word(w, text);
}

void json_put_bool(struct json_writer *w, bool value)
{
    put_word(w, value ? "true" : "false");
}

void json_put_null(struct json_writer *w)
{
    put_word(w, "null");
}

/* String text with its own escapes, in ours. */
static void put_source_string(struct json_writer *w, struct slice text)
{
    struct reader r = reader_of(text);
    uint8_t bytes[4];

    put(w, "\"", 1);
    while (r.pos < r.end) {
        size_t len = next_char(&r, bytes);

        if (len == 1)
            put_char(w, bytes[0]);
        else
            put(w, bytes, len);
    }
    put(w, "\"", 1);
}

void json_put_source(struct json_writer *w, struct slice value)
{
    struct reader r = reader_of(value);
    struct slice text;

    before_value(w);
    while (r.pos < r.end) {
        skip_space(&r);
        if (r.pos >= r.end)
            break;
        if (*r.pos == '"') {
            if (!take_string(&r, &text))
                break;
            put_source_string(w, text);
        } else {
            put(w, r.pos++, 1);
        }
    }
}

void json_put_source_key(struct json_writer *w, struct slice name)
{
    before_value(w);
    put_source_string(w, name);
    put(w, ":", 1);
    w->comma = false;
}
