#include "api/eth_request.h"

#include "api/encoding.h"
#include "api/fields.h"

#include "codec/json.h"
#include "crypto/eth.h"

#include <stdio.h>

int eth_message_request_read(struct api_request *req, struct eth_message_request *out)
{
    AUTO_JSON json_t *object = NULL;
    struct slice message;

    *out = (struct eth_message_request){0};
    if (read_object(req, api_body(req), &object) < 0 ||
        field_string(req, object, "message", FIELD_REQUIRED, &message) < 0 ||
        field_bool(req, object, "include_attestation", FIELD_OPTIONAL, &out->include_attestation) <
            0)
        return -1;
    if (message.len == 0)
        return refuse(req, "message_empty", "Message cannot be empty");
    eth_message_digest(message, out->digest);
    return 0;
}

/* ---- the structured form ---- */

enum member_kind {
    SCALAR,
    RECIPIENT,
    BYTES,
    ACCESS_LIST,
};

/* In the order in which they are checked. */
static const struct member {
    const char *name;
    enum field_need need;
    enum member_kind kind;
    size_t offset;
} members[] = {
    {"chain_id", FIELD_REQUIRED, SCALAR, offsetof(struct eth_tx, chain_id)},
    {"to", FIELD_NULLABLE, RECIPIENT, offsetof(struct eth_tx, to)},
    {"access_list", FIELD_OPTIONAL, ACCESS_LIST, offsetof(struct eth_tx, access_list)},
    {"nonce", FIELD_REQUIRED, SCALAR, offsetof(struct eth_tx, nonce)},
    {"max_priority_fee_per_gas", FIELD_REQUIRED, SCALAR,
     offsetof(struct eth_tx, max_priority_fee_per_gas)},
    {"max_fee_per_gas", FIELD_REQUIRED, SCALAR, offsetof(struct eth_tx, max_fee_per_gas)},
    {"gas_limit", FIELD_REQUIRED, SCALAR, offsetof(struct eth_tx, gas_limit)},
    {"value", FIELD_OPTIONAL, SCALAR, offsetof(struct eth_tx, value)},
    {"data", FIELD_OPTIONAL, BYTES, offsetof(struct eth_tx, data)},
};

struct structured {
    struct slice text[ARRAY_LEN(members)]; /* empty when absent */
    bool given[ARRAY_LEN(members)];
    const json_t *access_list; /* NULL when absent */
    struct buf bytes;          /* decoded members; never moves, as `tx` points into it */
    struct buf list, keys;     /* the access list's items; storage keys of one of them */
    struct eth_tx tx;
};

static void cleanup_structured(struct structured *s)
{
    buf_free(&s->bytes);
    buf_free(&s->list);
    buf_free(&s->keys);
}

/* An entry's members; `keys` is NULL when they are absent. */
static int read_entry(struct api_request *req, const json_t *entry, struct slice *address,
                      const json_t **keys)
{
    *keys = NULL;
    if (!json_is_object(entry))
        return refuse(req, "invalid_type", "access_list must hold objects only");
    if (field_string(req, entry, "address", FIELD_REQUIRED, address) < 0 ||
        field_array(req, entry, "storage_keys", FIELD_OPTIONAL, keys) < 0)
        return -1;
    return 0;
}

static int check_entry_types(struct api_request *req, const json_t *entry)
{
    const json_t *keys;
    struct slice address;

    if (read_entry(req, entry, &address, &keys) < 0)
        return -1;
    for (size_t i = 0; i < json_array_size(keys); i++)
        if (!json_is_string(json_array_get(keys, i)))
            return refuse(req, "invalid_type", "storage_keys must hold strings only");
    return 0;
}

/* The shape of the whole object, before any text in it is looked at. */
static int read_types(struct api_request *req, const json_t *payload, struct structured *s)
{
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        const struct member *m = &members[i];
        int rc = m->kind == ACCESS_LIST
                     ? field_array(req, payload, m->name, m->need, &s->access_list)
                     : field_string(req, payload, m->name, m->need, &s->text[i]);

        if (rc < 0)
            return -1;
        s->given[i] = rc > 0;
    }
    for (size_t i = 0; i < json_array_size(s->access_list); i++)
        if (check_entry_types(req, json_array_get(s->access_list, i)) < 0)
            return -1;
    return 0;
}

/* Appends to `into`, and says where. */
static const char *decode(const char *(*how)(struct slice, struct buf *), struct slice text,
                          struct buf *into, struct slice *out)
{
    size_t start = into->len;
    const char *problem = how(text, into);

    if (!problem)
        *out = slice_of(into->ptr + start, into->len - start);
    return problem;
}

/* Every way to get an address wrong is the same error: nobody may be paid by accident. */
static int decode_address(struct api_request *req, const char *name, struct slice text,
                          struct structured *s, struct slice *out)
{
    const char *problem = decode(hex_data_decode, text, &s->bytes, out);

    if (problem)
        return refuse(req, "invalid_address", "%s: %s", name, problem);
    if (out->len != ETH_TX_ADDRESS_LEN)
        return refuse(req, "invalid_address", "%s: %zu bytes instead of %d", name, out->len,
                      ETH_TX_ADDRESS_LEN);
    return 0;
}

static int decode_entry(struct api_request *req, const json_t *entry, size_t at,
                        struct structured *s)
{
    struct slice text, address, key;
    const json_t *keys;
    char name[64];

    if (read_entry(req, entry, &text, &keys) < 0)
        return -1;
    snprintf(name, sizeof(name), "access_list[%zu].address", at);
    if (decode_address(req, name, text, s, &address) < 0)
        return -1;
    buf_clear(&s->keys);
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const json_t *value = json_array_get(keys, i);
        const char *problem;

        text = slice_of(json_string_value(value), json_string_length(value));
        problem = decode(hex_data_decode, text, &s->keys, &key);
        if (problem)
            return refuse(req, "invalid_hex", "access_list[%zu].storage_keys[%zu]: %s", at, i,
                          problem);
        if (key.len != ETH_TX_KEY_LEN)
            return refuse(req, "invalid_value",
                          "access_list[%zu].storage_keys[%zu]: %zu bytes instead of %d", at, i,
                          key.len, ETH_TX_KEY_LEN);
    }
    if (eth_access_list_put(&s->list, address, buf_slice(&s->keys)) < 0)
        return refuse(req, "invalid_tx", "access_list is too long");
    return 0;
}

static int decode_member(struct api_request *req, size_t at, struct structured *s)
{
    const struct member *m = &members[at];
    struct slice *to = (struct slice *)((char *)&s->tx + m->offset);
    const char *problem;

    switch (m->kind) {
    case RECIPIENT:
        return s->given[at] ? decode_address(req, m->name, s->text[at], s, to) : 0;
    case ACCESS_LIST:
        for (size_t i = 0; i < json_array_size(s->access_list); i++)
            if (decode_entry(req, json_array_get(s->access_list, i), i, s) < 0)
                return -1;
        *to = buf_slice(&s->list);
        return 0;
    default:
        problem = decode(m->kind == SCALAR ? hex_scalar_decode : hex_data_decode, s->text[at],
                         &s->bytes, to);
        return problem ? refuse(req, "invalid_hex", "%s: %s", m->name, problem) : 0;
    }
}

static int read_structured(struct api_request *req, const json_t *payload, struct buf *out)
{
    CLEANUP(cleanup_structured)
    struct structured s = {.list = BUF(API_BODY_MAX), .keys = BUF(API_BODY_MAX)};
    struct error err = {0};

    /* Every decoded byte took a byte of the body at least. */
    s.bytes = BUF(api_body(req).len);
    if (read_types(req, payload, &s) < 0)
        return -1;
    if (!buf_reserve(&s.bytes, s.bytes.max))
        return refuse(req, "invalid_tx", "payload is too long");
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        if (decode_member(req, i, &s) < 0)
            return -1;
        if (eth_tx_check(&s.tx, &err) < 0)
            return refuse(req, "invalid_tx", "%s", err.msg);
    }
    return eth_tx_put_unsigned(&s.tx, out) < 0 ? refuse(req, "invalid_tx", "payload is too long")
                                               : 0;
}

/* ---- both forms ---- */

static int read_raw(struct api_request *req, const json_t *payload, struct buf *out)
{
    struct slice text;
    const char *problem;

    if (field_string(req, payload, "raw_payload", FIELD_REQUIRED, &text) < 0)
        return -1;
    problem = hex_data_decode(text, out);
    return problem ? refuse(req, "invalid_hex", "raw_payload: %s", problem) : 0;
}

static int read_payload(struct api_request *req, const json_t *object, struct eth_tx_request *out)
{
    const json_t *payload;
    struct slice kind;

    if (field_object(req, object, "payload", FIELD_REQUIRED, &payload) < 0 ||
        field_string(req, payload, "kind", FIELD_REQUIRED, &kind) < 0)
        return -1;
    if (slice_equal_str(kind, "structured"))
        return read_structured(req, payload, &out->payload);
    if (slice_equal_str(kind, "raw_rlp"))
        return read_raw(req, payload, &out->payload);
    return refuse(req, "invalid_value", "kind must be \"structured\" or \"raw_rlp\"");
}

/* Takes the payload apart, whoever wrote it, and makes sure that writing it again changes nothing:
   what is signed is what was read. */
static int parse_payload(struct api_request *req, struct eth_tx_request *r)
{
    AUTO_BUF struct buf again = BUF(r->payload.len);
    struct error err = {0};

    if (eth_tx_parse_unsigned(buf_slice(&r->payload), &r->tx, &err) < 0)
        return refuse(req, err.kind == ERR_LIMIT ? "invalid_tx" : "invalid_rlp", "%s", err.msg);
    if (eth_tx_put_unsigned(&r->tx, &again) < 0 ||
        !slice_equal(buf_slice(&again), buf_slice(&r->payload)))
        return refuse(req, "invalid_rlp", "the transaction is not in its canonical form");
    return 0;
}

int eth_tx_request_read(struct api_request *req, struct eth_tx_request *out)
{
    AUTO_JSON json_t *object = NULL;

    *out = (struct eth_tx_request){.payload = BUF(API_BODY_MAX)};
    if (read_object(req, api_body(req), &object) < 0 ||
        field_bool(req, object, "include_attestation", FIELD_OPTIONAL, &out->include_attestation) <
            0 ||
        read_payload(req, object, out) < 0)
        return -1;
    return parse_payload(req, out);
}

void eth_tx_request_release(struct eth_tx_request *r)
{
    buf_free(&r->payload);
}
