/*
 * CBOR (RFC 8949), the bounded subset that NSM, COSE and EIF signatures use.
 *
 * Writing: shortest-form heads, definite lengths. Reading: integers of any width, definite or
 * indefinite arrays and maps, definite strings only, valid UTF-8 in text, no duplicate keys, no
 * floats, of the simple values only false, true and null. Nothing is allocated: items point into
 * the input, which must outlive them.
 */
#ifndef CAPSULE_CODEC_CBOR_H
#define CAPSULE_CODEC_CBOR_H

#include "base/error.h"
#include "base/slice.h"

#define CBOR_DEPTH_MAX 8     /* arrays, maps and tags inside one another */
#define CBOR_MAP_MAX   256   /* entries of one map */
#define CBOR_ARRAY_MAX 65536 /* elements of one array */

/* ---- writing ---- */

/* Appends to *out. The first thing that does not fit sets `failed`; the rest is then ignored. */
struct cbor_writer {
    struct buf *out;
    bool failed;
};

void cbor_put_uint(struct cbor_writer *w, uint64_t value);
/* Writes any signed integer, negative ones as major type 1. */
void cbor_put_int(struct cbor_writer *w, int64_t value);
void cbor_put_bytes(struct cbor_writer *w, struct slice bytes);
void cbor_put_text(struct cbor_writer *w, struct slice text);
void cbor_put_cstr(struct cbor_writer *w, const char *text);
void cbor_put_null(struct cbor_writer *w);
void cbor_put_bool(struct cbor_writer *w, bool value);
/* Heads; the caller then writes `count` items (for a map, `count` keys each with its value). */
void cbor_put_array(struct cbor_writer *w, uint64_t count);
void cbor_put_map(struct cbor_writer *w, uint64_t count);
void cbor_put_tag(struct cbor_writer *w, uint64_t tag);
/* Heads without a count, ended by cbor_put_break(): some devices write maps so. */
void cbor_put_map_indefinite(struct cbor_writer *w);
void cbor_put_break(struct cbor_writer *w);
/* Appends bytes that are CBOR already. */
void cbor_put_raw(struct cbor_writer *w, struct slice item);

/* ---- reading ---- */

enum cbor_type {
    CBOR_UINT,
    CBOR_NINT, /* the value is -1 - n */
    CBOR_BYTES,
    CBOR_TEXT,
    CBOR_ARRAY,
    CBOR_MAP,
    CBOR_TAG,
    CBOR_BOOL,
    CBOR_NULL,
};

struct cbor_item {
    enum cbor_type type;
    uint64_t n;        /* integer value, tag number, bool; count of elements or entries */
    struct slice str;  /* content of BYTES and TEXT */
    struct slice body; /* encoded content of ARRAY, MAP and TAG, without head and break */
    struct slice raw;  /* the whole encoded item */
    bool indefinite;   /* an ARRAY or MAP written without a count */
};

/* Parses exactly one item that fills `in`. ERR_INVALID when malformed, ERR_LIMIT past a bound. */
int cbor_parse(struct slice in, struct cbor_item *out, struct error *err);
/* Parses the next item at the cursor and moves behind it. */
int cbor_read(struct reader *r, struct cbor_item *out, struct error *err);

/* Walks the elements of an array, or the single item of a tag. */
struct cbor_iter {
    struct reader r;
    uint64_t left;
};
struct cbor_iter cbor_iter_of(const struct cbor_item *container);
/* Next element, or false at the end. The container has been checked, so this cannot fail. */
bool cbor_next(struct cbor_iter *it, struct cbor_item *out);
/* Next entry of a map; not to be mixed with cbor_next(). */
bool cbor_next_entry(struct cbor_iter *it, struct cbor_item *key, struct cbor_item *value);
/* Value of the entry with this text key; false when `map` is no map or has no such key. */
bool cbor_map_get(const struct cbor_item *map, const char *key, struct cbor_item *value);
/* The same for an unsigned integer key. */
bool cbor_map_get_uint(const struct cbor_item *map, uint64_t key, struct cbor_item *value);

#endif
