/*
 * JSON as spec/capsule-api.md section 2.2 wants it: strict reading on jansson, compact writing of
 * our own (jansson's escapes differ from the rule), and the source text of members for values that
 * must be passed on digit for digit.
 */
#ifndef CAPSULE_CODEC_JSON_H
#define CAPSULE_CODEC_JSON_H

#include "base/error.h"
#include "base/slice.h"

#include <jansson.h>

#define JSON_NESTING_MAX 127   /* levels, the top-level object included */
#define JSON_VALUES_MAX  65536 /* values and members in all; bounds the memory of the tree */

enum json_problem {
    JSON_OK,
    JSON_INVALID,      /* "invalid_json" */
    JSON_WRONG_TYPE,   /* "invalid_type": the top level is not an object */
    JSON_DUPLICATE,    /* "duplicate_field" */
    JSON_OUT_OF_RANGE, /* "invalid_value": a number beyond the range of a double */
};
/* The error code of capsule-api 2.4. */
const char *json_problem_code(enum json_problem problem);

/*
 * Parses one JSON object: UTF-8 without BOM, nothing behind it, no duplicate names at any depth.
 * On success the caller owns *out (json_decref()). On failure returns -1 with err and, when
 * `problem` is not NULL, its class. All numbers are json_real: read integers with
 * json_member_u64(), which looks at the source. From the first call on, jansson wipes all memory
 * that it frees in this process: texts may hold secrets.
 */
int json_read_object(struct slice text, json_t **out, enum json_problem *problem,
                     struct error *err);

/* For CLEANUP. */
void json_drop(json_t **value);
#define AUTO_JSON CLEANUP(json_drop)

/* ---- source text of an object that json_read_object() accepted ---- */

struct json_members {
    struct reader r;
};
/* `object` is the object's text, white space around it allowed. */
struct json_members json_members_of(struct slice object);
/*
 * Next member: `name` is the text between the quotes, escapes and all; `value` the value's text
 * without white space around it.
 */
bool json_members_next(struct json_members *it, struct slice *name, struct slice *value);
/* True when the name, unescaped, is `want` (which has no NUL). */
bool json_name_is(struct slice name, const char *want);
/* The text of a member's value; false when there is none of that name. */
bool json_member_raw(struct slice object, const char *name, struct slice *value);
/* An unsigned integer: digits only. Returns 1, 0 when the member is absent, -1 when it is something
   else or above `max`. */
int json_member_u64(struct slice object, const char *name, uint64_t max, uint64_t *out);

/* ---- writing ---- */

/* Appends to *out. The first thing that does not fit sets `failed`; the rest is then ignored. */
struct json_writer {
    struct buf *out;
    bool comma;
    bool failed;
};

void json_put_object(struct json_writer *w);
void json_put_object_end(struct json_writer *w);
void json_put_array(struct json_writer *w);
void json_put_array_end(struct json_writer *w);
/* Within an object, before each value. */
void json_put_key(struct json_writer *w, const char *key);
/* The text must be UTF-8. */
void json_put_text(struct json_writer *w, struct slice text);
void json_put_cstr(struct json_writer *w, const char *text);
/* Bytes as a string of lower-case hex after `prefix` ("" or "0x"). */
void json_put_hex(struct json_writer *w, const char *prefix, struct slice bytes);
/* Bytes as a string of standard base64. */
void json_put_base64(struct json_writer *w, struct slice bytes);
void json_put_uint(struct json_writer *w, uint64_t value);
void json_put_int(struct json_writer *w, int64_t value);
void json_put_bool(struct json_writer *w, bool value);
void json_put_null(struct json_writer *w);
/*
 * Source text of a value, made compact: white space dropped, strings in our escapes, numbers as
 * they are spelt. The text must come from an accepted object.
 */
void json_put_source(struct json_writer *w, struct slice value);
/* The same for a name as json_members_next() gives it. */
void json_put_source_key(struct json_writer *w, struct slice name);

#endif
