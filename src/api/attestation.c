/* POST /v1/attestation: spec/capsule-api.md section 6. */
#include "api/fields.h"
#include "api/internal.h"
#include "api/spki.h"

#include "base/text.h"
#include "codec/json.h"
#include "crypto/pem.h"

void attestation_init(struct attestation *a, const struct capsule_api *api)
{
    *a = (struct attestation){
        .nsm = api->nsm,
        .nonce = BUF(API_BODY_MAX),
        .public_key = BUF(NSM_PUBLIC_KEY_MAX),
        .user_data = BUF(API_BODY_MAX),
        .document = BUF(NSM_ANSWER_MAX),
    };
}

void attestation_release(struct attestation *a)
{
    buf_free(&a->nonce);
    buf_free(&a->public_key);
    buf_free(&a->user_data);
    buf_free(&a->document);
}

static void attestation_free(void *data)
{
    attestation_release(data);
    free(data);
}

static void cleanup_attestation(struct attestation **a)
{
    if (*a)
        attestation_free(*a);
}

/* ---- reading the request: each step returns 0, or -1 after it answered ---- */

static int refuse_size(struct api_request *req, const char *member, size_t size, size_t limit)
{
    return refuse(req, "attestation_input_too_large",
                  "%s: %zu bytes, but the NSM takes at most %zu", member, size, limit);
}

static int read_nonce(struct api_request *req, const json_t *object, struct attestation *a)
{
    struct slice text;
    int rc = field_string(req, object, "nonce", FIELD_NULLABLE, &text);

    if (rc < 0)
        return -1;
    a->has_nonce = rc > 0;
    if (a->has_nonce && base64_decode(text, &a->nonce) < 0)
        return refuse(req, "invalid_base64",
                      "nonce must be standard base64 with padding and no white space");
    if (a->nonce.len > NSM_NONCE_MAX)
        return refuse_size(req, "nonce", a->nonce.len, NSM_NONCE_MAX);
    return 0;
}

/*
 * Without a key the enclave's own encryption key is attested as a whole SPKI; with one only the
 * content of its BIT STRING. The asymmetry is the interface (section 6.2).
 */
static int read_public_key(struct capsule_api *api, struct api_request *req, const json_t *object,
                           struct attestation *a)
{
    AUTO_BUF struct buf der = BUF(API_BODY_MAX);
    struct slice pem, format = slice_str("raw"), key;
    uint8_t own[P384_SPKI_LEN];
    struct error err = {0};
    int present = field_string(req, object, "public_key", FIELD_NULLABLE, &pem);
    bool whole;

    if (present < 0 || field_string(req, object, "public_key_format", FIELD_NULLABLE, &format) < 0)
        return -1;
    whole = slice_equal_str(format, "spki");
    if (!whole && !slice_equal_str(format, "raw"))
        return refuse(req, "invalid_value", "public_key_format must be \"raw\" or \"spki\"");
    if (!present) {
        p384_point_spki(api->keys.encryption_point, own);
        return buf_append(&a->public_key, own, sizeof(own));
    }
    if (pem_decode("PUBLIC KEY", pem, &der, &err) < 0 ||
        spki_key_bytes(buf_slice(&der), &key, &err) < 0)
        return refuse(req, "invalid_pem", "public_key must be a PEM public key: %.120s", err.msg);
    if (whole)
        key = buf_slice(&der);
    if (buf_append(&a->public_key, key.ptr, key.len) < 0)
        return refuse_size(req, "public_key", key.len, NSM_PUBLIC_KEY_MAX);
    return 0;
}

/*
 * The caller's members in their order, then what the enclave itself states. The reserved names are
 * dropped wherever they stand, so that no caller can have a forged statement attested.
 */
static int read_user_data(struct capsule_api *api, struct api_request *req, const json_t *object,
                          struct slice body, struct attestation *a)
{
    const json_t *value = json_object_get(object, "user_data");
    struct json_writer w = {.out = &a->user_data};
    struct json_members members;
    struct slice source, name, member;
    bool given = value && json_typeof(value) != JSON_NULL;

    if (given && json_typeof(value) != JSON_OBJECT)
        return refuse(req, "user_data_not_object", "user_data must be a JSON object");
    json_put_object(&w);
    if (given && json_member_raw(body, "user_data", &source)) {
        members = json_members_of(source);
        while (json_members_next(&members, &name, &member)) {
            if (json_name_is(name, "eth_addr") || json_name_is(name, "app_wallet"))
                continue;
            json_put_source_key(&w, name);
            json_put_source(&w, member);
        }
    }
    attestation_end_user_data(api, &w);
    if (w.failed || a->user_data.len > NSM_USER_DATA_MAX)
        return refuse_size(req, "user_data (with eth_addr, which the enclave adds)",
                           w.failed ? API_BODY_MAX : a->user_data.len, NSM_USER_DATA_MAX);
    return 0;
}

/* ---- asking the NSM ---- */

void attestation_end_user_data(const struct capsule_api *api, struct json_writer *w)
{
    json_put_key(w, "eth_addr");
    json_put_cstr(w, api->keys.address);
    json_put_object_end(w);
}

void attestation_ask(struct attestation *a)
{
    struct nsm_option nonce = {.present = a->has_nonce, .bytes = buf_slice(&a->nonce)};
    struct nsm_option key = {.present = true, .bytes = buf_slice(&a->public_key)};
    struct nsm_option user_data = {.present = true, .bytes = buf_slice(&a->user_data)};

    a->failed = nsm_attest(a->nsm, user_data, nonce, key, &a->document, &a->err) < 0;
}

void attestation_fail(struct api_request *req, const struct attestation *a)
{
    if (a->err.kind == ERR_LIMIT || a->err.kind == ERR_INVALID)
        api_fail(req, 400, "attestation_input_too_large", a->err.msg);
    else
        api_fail(req, 500, "nsm_failure", a->err.msg);
}

static void ask(void *data)
{
    attestation_ask(data);
}

static void finish(struct api_request *req, void *data)
{
    CLEANUP(cleanup_attestation) struct attestation *a = data;

    if (a->failed)
        attestation_fail(req, a);
    else
        api_reply(req, 200, "application/cbor", &a->document);
}

void attestation_answer(struct capsule_api *api, struct api_request *req, struct slice body)
{
    CLEANUP(cleanup_attestation) struct attestation *a = xcalloc(1, sizeof(*a));
    AUTO_JSON json_t *object = NULL;
    struct attestation *job;

    attestation_init(a, api);
    if (read_object(req, body, &object) < 0 || read_nonce(req, object, a) < 0 ||
        read_public_key(api, req, object, a) < 0 || read_user_data(api, req, object, body, a) < 0)
        return;
    job = a;
    a = NULL;
    api_run(req, job, ask, finish, attestation_free);
}

void handle_attestation(struct api_request *req, void *arg)
{
    attestation_answer(arg, req, api_body(req));
}
