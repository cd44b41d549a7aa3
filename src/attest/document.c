#include "attest/document.h"

#include "codec/cbor.h"

/* ---- writing ---- */

static void put_option(struct cbor_writer *w, const char *key, const struct attest_option *option)
{
    cbor_put_cstr(w, key);
    if (option->present)
        cbor_put_bytes(w, option->bytes);
    else
        cbor_put_null(w);
}

static void put_pcrs(struct cbor_writer *w, const struct attest_document *doc)
{
    cbor_put_cstr(w, "pcrs");
    cbor_put_map(w, (uint64_t)__builtin_popcount(doc->pcrs));
    for (unsigned int i = 0; i < ATTEST_PCR_COUNT; i++) {
        if (attest_document_has_pcr(doc, i)) {
            cbor_put_uint(w, i);
            cbor_put_bytes(w, doc->pcr[i]);
        }
    }
}

int attest_document_write(const struct attest_document *doc, bool indefinite, struct buf *out,
                          struct error *err)
{
    struct cbor_writer w = {.out = out};

    if (indefinite)
        cbor_put_map_indefinite(&w);
    else
        cbor_put_map(&w, 9);
    cbor_put_cstr(&w, "module_id");
    cbor_put_text(&w, doc->module_id);
    cbor_put_cstr(&w, "digest");
    cbor_put_text(&w, doc->digest);
    cbor_put_cstr(&w, "timestamp");
    cbor_put_uint(&w, doc->timestamp_ms);
    put_pcrs(&w, doc);
    cbor_put_cstr(&w, "certificate");
    cbor_put_bytes(&w, doc->certificate);
    cbor_put_cstr(&w, "cabundle");
    cbor_put_array(&w, doc->cabundle_len);
    for (size_t i = 0; i < doc->cabundle_len; i++)
        cbor_put_bytes(&w, doc->cabundle[i]);
    put_option(&w, "public_key", &doc->public_key);
    put_option(&w, "user_data", &doc->user_data);
    put_option(&w, "nonce", &doc->nonce);
    if (indefinite)
        cbor_put_break(&w);
    return w.failed ? error_set(err, ERR_LIMIT, "no room for the attestation document") : 0;
}

/* ---- reading ---- */

enum field {
    MODULE_ID,
    DIGEST,
    TIMESTAMP,
    PCRS,
    CERTIFICATE,
    CABUNDLE,
    MANDATORY, /* those before are */
    PUBLIC_KEY = MANDATORY,
    USER_DATA,
    NONCE,
    FIELDS,
};

/* For arrays and maps `min` and `max` count elements, for strings bytes. */
static const struct {
    const char *name;
    enum cbor_type type;
    uint64_t min;
    uint64_t max;
} rules[FIELDS] = {
    [MODULE_ID] = {"module_id", CBOR_TEXT, 1, ATTEST_MODULE_ID_MAX},
    [DIGEST] = {"digest", CBOR_TEXT, 0, UINT64_MAX},
    [TIMESTAMP] = {"timestamp", CBOR_UINT, 0, UINT64_MAX},
    [PCRS] = {"pcrs", CBOR_MAP, 1, ATTEST_PCR_COUNT},
    [CERTIFICATE] = {"certificate", CBOR_BYTES, 1, ATTEST_CERTIFICATE_MAX},
    [CABUNDLE] = {"cabundle", CBOR_ARRAY, 1, ATTEST_BUNDLE_MAX},
    [PUBLIC_KEY] = {"public_key", CBOR_BYTES, 1, ATTEST_OPTION_MAX},
    [USER_DATA] = {"user_data", CBOR_BYTES, 0, ATTEST_OPTION_MAX},
    [NONCE] = {"nonce", CBOR_BYTES, 0, ATTEST_OPTION_MAX},
};

struct parse {
    struct cbor_item item[FIELDS];
    bool present[FIELDS];
    enum attest_failure *why;
    struct error *err;
};

static int refuse(struct parse *p, enum attest_failure why, const char *name, const char *what)
{
    *p->why = why;
    return error_set(p->err, ERR_INVALID, "%s %s", name, what);
}

/* Finds the fields; an option that is null counts as absent. */
static int collect(struct parse *p, const struct cbor_item *map)
{
    struct cbor_iter it = cbor_iter_of(map);
    struct cbor_item key, value;

    while (cbor_next_entry(&it, &key, &value))
        if (key.type != CBOR_TEXT)
            return refuse(p, ATTEST_FIELD_TYPE, "the payload", "has a key that is not text");
    for (int f = 0; f < FIELDS; f++) {
        p->present[f] = cbor_map_get(map, rules[f].name, &p->item[f]);
        if (f < MANDATORY && !p->present[f])
            return refuse(p, ATTEST_FIELD_MISSING, rules[f].name, "is missing");
        if (f >= MANDATORY && p->present[f] && p->item[f].type == CBOR_NULL)
            p->present[f] = false;
    }
    return 0;
}

static int check_types(struct parse *p)
{
    struct cbor_item key, value;
    struct cbor_iter it;

    for (int f = 0; f < FIELDS; f++)
        if (p->present[f] && p->item[f].type != rules[f].type)
            return refuse(p, ATTEST_FIELD_TYPE, rules[f].name, "has the wrong type");
    it = cbor_iter_of(&p->item[PCRS]);
    while (cbor_next_entry(&it, &key, &value))
        if (key.type != CBOR_UINT || value.type != CBOR_BYTES)
            return refuse(p, ATTEST_FIELD_TYPE, "pcrs", "is not a map of integers to bytes");
    it = cbor_iter_of(&p->item[CABUNDLE]);
    while (cbor_next(&it, &value))
        if (value.type != CBOR_BYTES)
            return refuse(p, ATTEST_FIELD_TYPE, "cabundle", "is not an array of bytes");
    return 0;
}

static int check_sizes(struct parse *p)
{
    struct cbor_item key, value;
    struct cbor_iter it;

    for (int f = 0; f < FIELDS; f++) {
        bool counted = rules[f].type == CBOR_MAP || rules[f].type == CBOR_ARRAY;
        uint64_t size = counted ? p->item[f].n : p->item[f].str.len;

        if (p->present[f] && (size < rules[f].min || size > rules[f].max))
            return refuse(p, ATTEST_FIELD_SIZE, rules[f].name,
                          size < rules[f].min ? "is empty" : "is too large");
    }
    it = cbor_iter_of(&p->item[PCRS]);
    while (cbor_next_entry(&it, &key, &value)) {
        if (key.n >= ATTEST_PCR_COUNT)
            return refuse(p, ATTEST_FIELD_SIZE, "pcrs", "has an index above 31");
        if (value.str.len != ATTEST_PCR_LEN)
            return refuse(p, ATTEST_FIELD_SIZE, "pcrs", "has a value that is not 48 bytes");
    }
    it = cbor_iter_of(&p->item[CABUNDLE]);
    while (cbor_next(&it, &value))
        if (value.str.len == 0 || value.str.len > ATTEST_CERTIFICATE_MAX)
            return refuse(p, ATTEST_FIELD_SIZE, "cabundle",
                          "has a certificate that is empty or over 1024 bytes");
    return 0;
}

static int check_values(struct parse *p)
{
    if (!slice_equal_str(p->item[DIGEST].str, "SHA384"))
        return refuse(p, ATTEST_FIELD_VALUE, "digest", "is not \"SHA384\"");
    if (p->item[TIMESTAMP].n == 0)
        return refuse(p, ATTEST_FIELD_VALUE, "timestamp", "is 0");
    return 0;
}

static struct attest_option option_of(const struct parse *p, enum field f)
{
    return (struct attest_option){p->present[f],
                                  p->present[f] ? p->item[f].str : (struct slice){0}};
}

static void fill(const struct parse *p, struct attest_document *out)
{
    struct cbor_item key, value;
    struct cbor_iter it;

    *out = (struct attest_document){
        .module_id = p->item[MODULE_ID].str,
        .digest = p->item[DIGEST].str,
        .timestamp_ms = p->item[TIMESTAMP].n,
        .certificate = p->item[CERTIFICATE].str,
        .public_key = option_of(p, PUBLIC_KEY),
        .user_data = option_of(p, USER_DATA),
        .nonce = option_of(p, NONCE),
    };
    it = cbor_iter_of(&p->item[PCRS]);
    while (cbor_next_entry(&it, &key, &value)) {
        out->pcrs |= UINT32_C(1) << key.n;
        out->pcr[key.n] = value.str;
    }
    it = cbor_iter_of(&p->item[CABUNDLE]);
    while (cbor_next(&it, &value))
        out->cabundle[out->cabundle_len++] = value.str;
}

int attest_document_read(struct slice payload, struct attest_document *out,
                         enum attest_failure *why, struct error *err)
{
    struct parse p = {.why = why, .err = err};
    struct cbor_item map;

    if (cbor_parse(payload, &map, err) < 0) {
        *why = ATTEST_CBOR;
        return error_wrap(err, "payload");
    }
    if (map.type != CBOR_MAP)
        return refuse(&p, ATTEST_FIELD_TYPE, "the payload", "is not a map");
    if (collect(&p, &map) < 0 || check_types(&p) < 0 || check_sizes(&p) < 0 || check_values(&p) < 0)
        return -1;
    fill(&p, out);
    return 0;
}
