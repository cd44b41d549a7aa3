#include "nsm/message.h"

#include "codec/cbor.h"

static const char *const op_names[] = {
    [NSM_DESCRIBE_NSM] = "DescribeNSM", [NSM_DESCRIBE_PCR] = "DescribePCR",
    [NSM_EXTEND_PCR] = "ExtendPCR",     [NSM_LOCK_PCR] = "LockPCR",
    [NSM_LOCK_PCRS] = "LockPCRs",       [NSM_ATTESTATION] = "Attestation",
    [NSM_GET_RANDOM] = "GetRandom",
};

static const char *const status_names[] = {
    [NSM_OK] = "Ok",
    [NSM_INVALID_ARGUMENT] = "InvalidArgument",
    [NSM_INVALID_INDEX] = "InvalidIndex",
    [NSM_INVALID_RESPONSE] = "InvalidResponse",
    [NSM_READ_ONLY_INDEX] = "ReadOnlyIndex",
    [NSM_INVALID_OPERATION] = "InvalidOperation",
    [NSM_BUFFER_TOO_SMALL] = "BufferTooSmall",
    [NSM_INPUT_TOO_LARGE] = "InputTooLarge",
    [NSM_INTERNAL_ERROR] = "InternalError",
};

const char *nsm_op_name(enum nsm_op op)
{
    return op_names[op];
}

const char *nsm_status_name(enum nsm_status status)
{
    return status_names[status];
}

/* Requests and answers without parameters are bare texts. */
static bool request_is_text(enum nsm_op op)
{
    return op == NSM_DESCRIBE_NSM || op == NSM_GET_RANDOM;
}

static bool answer_is_text(enum nsm_op op)
{
    return op == NSM_LOCK_PCR || op == NSM_LOCK_PCRS;
}

static const char *index_key(enum nsm_op op)
{
    return op == NSM_LOCK_PCRS ? "range" : "index";
}

/* ---- requests ---- */

static void put_option(struct cbor_writer *w, const char *key, const struct nsm_option *option)
{
    cbor_put_cstr(w, key);
    if (option->present)
        cbor_put_bytes(w, option->bytes);
    else
        cbor_put_null(w);
}

static void put_head(struct cbor_writer *w, enum nsm_op op, uint64_t parameters)
{
    cbor_put_map(w, 1);
    cbor_put_cstr(w, op_names[op]);
    cbor_put_map(w, parameters);
}

static void put_request(struct cbor_writer *w, const struct nsm_request *request)
{
    if (request_is_text(request->op)) {
        cbor_put_cstr(w, op_names[request->op]);
        return;
    }
    if (request->op == NSM_ATTESTATION) {
        put_head(w, request->op, 3);
        put_option(w, "user_data", &request->user_data);
        put_option(w, "nonce", &request->nonce);
        put_option(w, "public_key", &request->public_key);
        return;
    }
    put_head(w, request->op, request->op == NSM_EXTEND_PCR ? 2 : 1);
    cbor_put_cstr(w, index_key(request->op));
    cbor_put_uint(w, request->index);
    if (request->op == NSM_EXTEND_PCR) {
        cbor_put_cstr(w, "data");
        cbor_put_bytes(w, request->data);
    }
}

int nsm_request_encode(const struct nsm_request *request, struct buf *out, struct error *err)
{
    struct cbor_writer w = {.out = out};
    size_t before = out->len;

    put_request(&w, request);
    if (w.failed || out->len - before > NSM_REQUEST_MAX) {
        out->len = before;
        return error_set(err, ERR_LIMIT, "the %s request is longer than %d bytes",
                         op_names[request->op], NSM_REQUEST_MAX);
    }
    return 0;
}

static int malformed(struct error *err, const char *what)
{
    return error_set(err, ERR_INVALID, "malformed NSM request: %s", what);
}

static bool find_op(struct slice name, enum nsm_op *out)
{
    for (size_t i = 0; i < ARRAY_LEN(op_names); i++) {
        if (slice_equal_str(name, op_names[i])) {
            *out = (enum nsm_op)i;
            return true;
        }
    }
    return false;
}

/* Splits "Name" or {"Name": value}; *value is then NULL's for the bare form. */
static bool split(const struct cbor_item *item, struct slice *name, struct cbor_item *value,
                  bool *bare)
{
    struct cbor_item key;
    struct cbor_iter it = cbor_iter_of(item);

    *bare = item->type == CBOR_TEXT;
    if (*bare) {
        *name = item->str;
        return true;
    }
    if (item->type != CBOR_MAP || item->n != 1 || !cbor_next_entry(&it, &key, value) ||
        key.type != CBOR_TEXT)
        return false;
    *name = key.str;
    return true;
}

static bool get_u16(const struct cbor_item *map, const char *key, uint16_t *out)
{
    struct cbor_item v;

    if (!cbor_map_get(map, key, &v) || v.type != CBOR_UINT || v.n > UINT16_MAX)
        return false;
    *out = (uint16_t)v.n;
    return true;
}

static bool get_bytes(const struct cbor_item *map, const char *key, struct slice *out)
{
    struct cbor_item v;

    if (!cbor_map_get(map, key, &v) || v.type != CBOR_BYTES)
        return false;
    *out = v.str;
    return true;
}

static bool get_option(const struct cbor_item *map, const char *key, struct nsm_option *out)
{
    struct cbor_item v;

    if (!cbor_map_get(map, key, &v) || (v.type != CBOR_BYTES && v.type != CBOR_NULL))
        return false;
    out->present = v.type == CBOR_BYTES;
    out->bytes = out->present ? v.str : (struct slice){0};
    return true;
}

static bool get_parameters(const struct cbor_item *map, struct nsm_request *out)
{
    uint64_t count = out->op == NSM_ATTESTATION ? 3 : out->op == NSM_EXTEND_PCR ? 2 : 1;

    if (map->type != CBOR_MAP || map->n != count)
        return false;
    if (out->op == NSM_ATTESTATION)
        return get_option(map, "user_data", &out->user_data) &&
               get_option(map, "nonce", &out->nonce) &&
               get_option(map, "public_key", &out->public_key);
    return get_u16(map, index_key(out->op), &out->index) &&
           (out->op != NSM_EXTEND_PCR || get_bytes(map, "data", &out->data));
}

int nsm_request_decode(struct slice bytes, struct nsm_request *out, struct error *err)
{
    struct cbor_item item, value = {0};
    struct nsm_request request = {0};
    struct slice name = {0};
    bool bare;

    if (cbor_parse(bytes, &item, err) < 0)
        return error_wrap(err, "NSM request");
    if (!split(&item, &name, &value, &bare))
        return malformed(err, "neither a text nor a map of one text");
    if (!find_op(name, &request.op))
        return malformed(err, "unknown operation");
    if (bare != request_is_text(request.op))
        return malformed(err, "parameters where none belong, or none where they do");
    if (!bare && !get_parameters(&value, &request))
        return malformed(err, "wrong parameters");
    *out = request;
    return 0;
}

/* ---- answers ---- */

static void put_description(struct cbor_writer *w, const struct nsm_description *d)
{
    cbor_put_cstr(w, "version_major");
    cbor_put_uint(w, d->version_major);
    cbor_put_cstr(w, "version_minor");
    cbor_put_uint(w, d->version_minor);
    cbor_put_cstr(w, "version_patch");
    cbor_put_uint(w, d->version_patch);
    cbor_put_cstr(w, "module_id");
    cbor_put_cstr(w, d->module_id);
    cbor_put_cstr(w, "max_pcrs");
    cbor_put_uint(w, d->max_pcrs);
    cbor_put_cstr(w, "locked_pcrs");
    cbor_put_array(w, (uint64_t)__builtin_popcount(d->locked));
    for (unsigned int i = 0; i < NSM_PCR_COUNT; i++)
        if (d->locked >> i & 1)
            cbor_put_uint(w, i);
    cbor_put_cstr(w, "digest");
    cbor_put_cstr(w, d->digest);
}

/* The member that holds `bytes`. */
static const char *bytes_key(enum nsm_op op)
{
    return op == NSM_ATTESTATION ? "document" : op == NSM_GET_RANDOM ? "random" : "data";
}

static void put_answer(struct cbor_writer *w, const struct nsm_answer *answer)
{
    if (answer->status != NSM_OK) {
        cbor_put_map(w, 1);
        cbor_put_cstr(w, "Error");
        cbor_put_cstr(w, status_names[answer->status]);
    } else if (answer_is_text(answer->op)) {
        cbor_put_cstr(w, op_names[answer->op]);
    } else if (answer->op == NSM_DESCRIBE_NSM) {
        put_head(w, answer->op, 7);
        put_description(w, &answer->description);
    } else {
        put_head(w, answer->op, answer->op == NSM_DESCRIBE_PCR ? 2 : 1);
        if (answer->op == NSM_DESCRIBE_PCR) {
            cbor_put_cstr(w, "lock");
            cbor_put_bool(w, answer->locked);
        }
        cbor_put_cstr(w, bytes_key(answer->op));
        cbor_put_bytes(w, answer->bytes);
    }
}

int nsm_answer_encode(const struct nsm_answer *answer, struct buf *out, struct error *err)
{
    struct cbor_writer w = {.out = out};
    size_t before = out->len;

    put_answer(&w, answer);
    if (w.failed || out->len - before > NSM_ANSWER_MAX) {
        out->len = before;
        return error_set(err, ERR_LIMIT, "the NSM's answer is longer than %d bytes",
                         NSM_ANSWER_MAX);
    }
    return 0;
}

static int bad_answer(struct error *err, enum nsm_op op, const char *what)
{
    return error_set(err, ERR_INVALID, "the NSM's answer to %s %s", op_names[op], what);
}

static bool get_text(const struct cbor_item *map, const char *key, char *out, size_t size)
{
    struct cbor_item v;

    if (!cbor_map_get(map, key, &v) || v.type != CBOR_TEXT || v.str.len >= size ||
        (v.str.len && memchr(v.str.ptr, '\0', v.str.len)))
        return false;
    if (v.str.len)
        memcpy(out, v.str.ptr, v.str.len);
    out[v.str.len] = '\0';
    return true;
}

static bool get_locked(const struct cbor_item *map, uint32_t *out)
{
    struct cbor_item list, index;
    struct cbor_iter it;

    if (!cbor_map_get(map, "locked_pcrs", &list) || list.type != CBOR_ARRAY)
        return false;
    it = cbor_iter_of(&list);
    while (cbor_next(&it, &index)) {
        if (index.type != CBOR_UINT || index.n >= NSM_PCR_COUNT)
            return false;
        *out |= UINT32_C(1) << index.n;
    }
    return true;
}

static bool get_description(const struct cbor_item *map, struct nsm_description *d)
{
    return get_u16(map, "version_major", &d->version_major) &&
           get_u16(map, "version_minor", &d->version_minor) &&
           get_u16(map, "version_patch", &d->version_patch) &&
           get_u16(map, "max_pcrs", &d->max_pcrs) && get_locked(map, &d->locked) &&
           get_text(map, "module_id", d->module_id, sizeof(d->module_id)) &&
           get_text(map, "digest", d->digest, sizeof(d->digest));
}

static bool get_members(const struct cbor_item *map, enum nsm_op op, struct nsm_answer *out)
{
    struct cbor_item lock;

    if (map->type != CBOR_MAP)
        return false;
    if (op == NSM_DESCRIBE_NSM)
        return get_description(map, &out->description);
    if (!get_bytes(map, bytes_key(op), &out->bytes))
        return false;
    if (op == NSM_DESCRIBE_PCR || op == NSM_EXTEND_PCR) {
        if (out->bytes.len != NSM_PCR_LEN)
            return false;
    }
    if (op == NSM_DESCRIBE_PCR) {
        if (!cbor_map_get(map, "lock", &lock) || lock.type != CBOR_BOOL)
            return false;
        out->locked = lock.n != 0;
    }
    return true;
}

static enum nsm_status status_of(struct slice text)
{
    for (size_t i = NSM_INVALID_ARGUMENT; i < ARRAY_LEN(status_names); i++)
        if (slice_equal_str(text, status_names[i]))
            return (enum nsm_status)i;
    return NSM_INTERNAL_ERROR;
}

int nsm_answer_decode(struct slice bytes, enum nsm_op op, struct nsm_answer *out, struct error *err)
{
    struct cbor_item item, value = {0};
    struct slice name = {0};
    bool bare;

    memset(out, 0, sizeof(*out));
    out->op = op;
    if (cbor_parse(bytes, &item, err) < 0)
        return error_wrap(err, "the NSM's answer to %s", op_names[op]);
    if (!split(&item, &name, &value, &bare))
        return bad_answer(err, op, "has an unknown form");
    if (!bare && slice_equal_str(name, "Error")) {
        if (value.type != CBOR_TEXT)
            return bad_answer(err, op, "has an error that is not text");
        out->status = status_of(value.str);
        out->error = value.str;
        return 0;
    }
    if (!slice_equal_str(name, op_names[op]) || bare != answer_is_text(op))
        return bad_answer(err, op, "belongs to another operation");
    if (!bare && !get_members(&value, op, out))
        return bad_answer(err, op, "lacks a member, or has one of the wrong type");
    return 0;
}
