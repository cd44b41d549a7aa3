#include "codec/cbor.h"

#include "base/text.h"

/* ---- writing ---- */

static void append(struct cbor_writer *w, const void *ptr, size_t len)
{
    if (!w->failed && buf_append(w->out, ptr, len) < 0)
        w->failed = true;
}

static void put_head(struct cbor_writer *w, unsigned int major, uint64_t n)
{
    uint8_t head[9];
    size_t len;

    head[0] = (uint8_t)(major << 5);
    if (n < 24) {
        head[0] |= (uint8_t)n;
        len = 1;
    } else if (n <= 0xff) {
        head[0] |= 24;
        head[1] = (uint8_t)n;
        len = 2;
    } else if (n <= 0xffff) {
        head[0] |= 25;
        put_be16(head + 1, (uint16_t)n);
        len = 3;
    } else if (n <= 0xffffffff) {
        head[0] |= 26;
        put_be32(head + 1, (uint32_t)n);
        len = 5;
    } else {
        head[0] |= 27;
        put_be64(head + 1, n);
        len = 9;
    }
    append(w, head, len);
}

void cbor_put_uint(struct cbor_writer *w, uint64_t value)
{
    put_head(w, 0, value);
}

void cbor_put_int(struct cbor_writer *w, int64_t value)
{
    if (value >= 0)
        put_head(w, 0, (uint64_t)value);
    else
        put_head(w, 1, ~(uint64_t)value);
}

void cbor_put_bytes(struct cbor_writer *w, struct slice bytes)
{
    put_head(w, 2, bytes.len);
    append(w, bytes.ptr, bytes.len);
}

void cbor_put_text(struct cbor_writer *w, struct slice text)
{
    put_head(w, 3, text.len);
    append(w, text.ptr, text.len);
}

void cbor_put_cstr(struct cbor_writer *w, const char *text)
{
    cbor_put_text(w, slice_str(text));
}

void cbor_put_null(struct cbor_writer *w)
{
    append(w, "\xf6", 1);
}

void cbor_put_bool(struct cbor_writer *w, bool value)
{
    append(w, value ? "\xf5" : "\xf4", 1);
}

void cbor_put_array(struct cbor_writer *w, uint64_t count)
{
    put_head(w, 4, count);
}

void cbor_put_map(struct cbor_writer *w, uint64_t count)
{
    put_head(w, 5, count);
}

void cbor_put_tag(struct cbor_writer *w, uint64_t tag)
{
    put_head(w, 6, tag);
}

void cbor_put_map_indefinite(struct cbor_writer *w)
{
    append(w, "\xbf", 1);
}

void cbor_put_break(struct cbor_writer *w)
{
    append(w, "\xff", 1);
}

void cbor_put_raw(struct cbor_writer *w, struct slice item)
{
    append(w, item.ptr, item.len);
}

/* ---- reading ---- */

#define BREAK 0xff

static int malformed(struct error *err, const char *what)
{
    return error_set(err, ERR_INVALID, "malformed CBOR: %s", what);
}

/* Reads the head: major type, argument, and whether the length is left open. */
static int read_head(struct reader *r, unsigned int *major, uint64_t *n, bool *open,
                     struct error *err)
{
    uint8_t first, u8;
    uint16_t u16;
    uint32_t u32;
    bool ok;

    if (!reader_u8(r, &first))
        return malformed(err, "ends early");
    *major = first >> 5;
    *open = false;
    switch (first & 31) {
    case 24:
        ok = reader_u8(r, &u8);
        *n = ok ? u8 : 0;
        break;
    case 25:
        ok = reader_be16(r, &u16);
        *n = ok ? u16 : 0;
        break;
    case 26:
        ok = reader_be32(r, &u32);
        *n = ok ? u32 : 0;
        break;
    case 27:
        ok = reader_be64(r, n);
        break;
    case 28:
    case 29:
    case 30:
        return malformed(err, "reserved length");
    case 31:
        *n = 0;
        *open = true;
        return 0;
    default:
        *n = first & 31;
        return 0;
    }
    return ok ? 0 : malformed(err, "ends early");
}

static int read_item(struct reader *r, struct cbor_item *out, int depth, struct error *err);

static bool at_break(const struct reader *r)
{
    return r->pos != r->end && *r->pos == BREAK;
}

/* Two keys are the same when type and value are, whatever width an integer was written in. */
static bool same_key(const struct cbor_item *a, const struct cbor_item *b)
{
    if (a->type != b->type)
        return false;
    if (a->type == CBOR_BYTES || a->type == CBOR_TEXT)
        return slice_equal(a->str, b->str);
    return a->n == b->n;
}

static int check_unique(const struct cbor_item *map, struct error *err)
{
    struct cbor_iter outer = cbor_iter_of(map);
    struct cbor_item a, b, value;

    while (cbor_next_entry(&outer, &a, &value)) {
        struct cbor_iter inner = outer;

        while (cbor_next_entry(&inner, &b, &value))
            if (same_key(&a, &b))
                return malformed(err, "duplicate key");
    }
    return 0;
}

static bool may_be_key(const struct cbor_item *key)
{
    return key->type == CBOR_UINT || key->type == CBOR_NINT || key->type == CBOR_BYTES ||
           key->type == CBOR_TEXT;
}

static int read_container(struct reader *r, struct cbor_item *out, bool open, int depth,
                          struct error *err)
{
    uint64_t max = out->type == CBOR_MAP ? CBOR_MAP_MAX : CBOR_ARRAY_MAX, count = 0;
    const uint8_t *start = r->pos;
    struct cbor_item child;

    if (out->n > max)
        return error_set(err, ERR_LIMIT, "CBOR container has more than %u entries",
                         (unsigned int)max);
    while (open ? !at_break(r) : count < out->n) {
        if (count == max)
            return error_set(err, ERR_LIMIT, "CBOR container has more than %u entries",
                             (unsigned int)max);
        if (read_item(r, &child, depth + 1, err) < 0)
            return -1;
        if (out->type == CBOR_MAP) {
            if (!may_be_key(&child))
                return malformed(err, "unusable map key");
            if (open && at_break(r))
                return malformed(err, "map key without value");
            if (read_item(r, &child, depth + 1, err) < 0)
                return -1;
        }
        count++;
    }
    out->n = count;
    out->indefinite = open;
    out->body = slice_of(start, (size_t)(r->pos - start));
    if (open)
        r->pos++;
    return out->type == CBOR_MAP ? check_unique(out, err) : 0;
}

static int read_simple(struct cbor_item *out, bool open, struct error *err)
{
    if (open)
        return malformed(err, "unexpected break");
    if (out->n == 22) {
        out->type = CBOR_NULL;
    } else if (out->n == 20 || out->n == 21) {
        out->type = CBOR_BOOL;
        out->n -= 20;
    } else {
        return malformed(err, "floats and other simple values are not used here");
    }
    return 0;
}

static int read_item(struct reader *r, struct cbor_item *out, int depth, struct error *err)
{
    static const enum cbor_type types[] = {CBOR_UINT,  CBOR_NINT, CBOR_BYTES, CBOR_TEXT,
                                           CBOR_ARRAY, CBOR_MAP,  CBOR_TAG};
    const uint8_t *start = r->pos;
    struct cbor_item inner;
    unsigned int major = 0;
    bool open = false;

    memset(out, 0, sizeof(*out));
    if (depth > CBOR_DEPTH_MAX)
        return error_set(err, ERR_LIMIT, "CBOR nested deeper than %d", CBOR_DEPTH_MAX);
    if (read_head(r, &major, &out->n, &open, err) < 0)
        return -1;
    if (major < ARRAY_LEN(types))
        out->type = types[major];
    if (open && major != 4 && major != 5)
        return malformed(err, major == 7 ? "unexpected break" : "string without a length");
    switch (major) {
    case 2:
    case 3:
        if (out->n > SIZE_MAX || !reader_take(r, (size_t)out->n, &out->str))
            return malformed(err, "string runs past the end");
        if (major == 3 && !utf8_valid(out->str))
            return malformed(err, "text is not UTF-8");
        break;
    case 4:
    case 5:
        if (read_container(r, out, open, depth, err) < 0)
            return -1;
        break;
    case 6:
        out->body.ptr = r->pos;
        if (read_item(r, &inner, depth + 1, err) < 0)
            return -1;
        out->body.len = inner.raw.len;
        break;
    case 7:
        if (r->pos - start != 1)
            return malformed(err, "floats and other simple values are not used here");
        if (read_simple(out, open, err) < 0)
            return -1;
        break;
    default:
        break;
    }
    out->raw = slice_of(start, (size_t)(r->pos - start));
    return 0;
}

int cbor_read(struct reader *r, struct cbor_item *out, struct error *err)
{
    struct reader copy = *r;

    if (read_item(&copy, out, 0, err) < 0)
        return -1;
    *r = copy;
    return 0;
}

int cbor_parse(struct slice in, struct cbor_item *out, struct error *err)
{
    struct reader r = reader_of(in);

    if (cbor_read(&r, out, err) < 0)
        return -1;
    return reader_left(&r) ? malformed(err, "bytes after the end") : 0;
}

struct cbor_iter cbor_iter_of(const struct cbor_item *container)
{
    uint64_t count = container->n;

    if (container->type == CBOR_TAG)
        count = 1;
    else if (container->type != CBOR_ARRAY && container->type != CBOR_MAP)
        count = 0;
    return (struct cbor_iter){reader_of(container->body), count};
}

bool cbor_next(struct cbor_iter *it, struct cbor_item *out)
{
    if (it->left == 0 || cbor_read(&it->r, out, NULL) < 0)
        return false;
    it->left--;
    return true;
}

bool cbor_next_entry(struct cbor_iter *it, struct cbor_item *key, struct cbor_item *value)
{
    if (!cbor_next(it, key))
        return false;
    it->left++; /* an entry is two items, counted once */
    return cbor_next(it, value);
}

bool cbor_map_get(const struct cbor_item *map, const char *key, struct cbor_item *value)
{
    struct cbor_iter it = cbor_iter_of(map);
    struct cbor_item k, v;

    if (map->type != CBOR_MAP)
        return false;
    while (cbor_next_entry(&it, &k, &v)) {
        if (k.type == CBOR_TEXT && slice_equal_str(k.str, key)) {
            *value = v;
            return true;
        }
    }
    return false;
}

bool cbor_map_get_uint(const struct cbor_item *map, uint64_t key, struct cbor_item *value)
{
    struct cbor_iter it = cbor_iter_of(map);
    struct cbor_item k, v;

    if (map->type != CBOR_MAP)
        return false;
    while (cbor_next_entry(&it, &k, &v)) {
        if (k.type == CBOR_UINT && k.n == key) {
            *value = v;
            return true;
        }
    }
    return false;
}
