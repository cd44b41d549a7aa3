/* POST /v1/encryption/decrypt and encrypt: spec/capsule-api.md sections 8.2 to 8.5. */
#include "api/encoding.h"
#include "api/fields.h"
#include "api/internal.h"

#include "base/text.h"
#include "codec/json.h"
#include "crypto/p384_box.h"

#define LEGACY_NONCE_LEN 32
#define TAGGED_MAX       (API_BODY_MAX + P384_BOX_TAG_LEN)

/* One message on its way through the key; lives from the handler to the reply. */
struct message {
    struct capsule_api *api;
    uint8_t peer[P384_POINT_LEN], nonce[P384_BOX_NONCE_LEN];
    json_t *request;        /* of an encryption, for its ... */
    struct slice plaintext; /* ... string */
    struct buf sealed;
    struct buf opened; /* by a decryption */
    bool base64;       /* plaintext_encoding */
    bool failed, not_utf8;
};

static struct message *message_new(struct capsule_api *api)
{
    struct message *m = xcalloc(1, sizeof(*m));

    m->api = api;
    m->sealed = BUF(TAGGED_MAX);
    m->opened = BUF_SECRET(TAGGED_MAX);
    return m;
}

static void message_free(struct message *m)
{
    json_decref(m->request);
    buf_free(&m->sealed);
    buf_free(&m->opened);
    free(m);
}

static void message_drop(void *data)
{
    message_free(data);
}

static void cleanup_message(struct message **m)
{
    if (*m)
        message_free(*m);
}
#define AUTO_MESSAGE CLEANUP(cleanup_message)

static void message_fingerprint(const struct message *m, uint8_t *out)
{
    replay_fingerprint(m->peer, m->nonce, out);
}

/* ---- reading requests: each step returns 0, or -1 after it answered ---- */

static int read_hex(struct api_request *req, const char *name, struct slice text, struct buf *out)
{
    const char *problem = hex_strict_decode(text, out);

    return problem ? refuse(req, "invalid_hex", "Invalid %s hex: %s", name, problem) : 0;
}

static int read_nonce(struct api_request *req, struct slice text, struct message *m)
{
    AUTO_BUF struct buf nonce = BUF(API_BODY_MAX);

    if (read_hex(req, "nonce", text, &nonce) < 0)
        return -1;
    if (nonce.len != P384_BOX_NONCE_LEN && nonce.len != LEGACY_NONCE_LEN)
        return refuse(req, "invalid_nonce_length",
                      "Invalid nonce length: expected %d bytes (or %d-byte legacy nonce), got %zu",
                      P384_BOX_NONCE_LEN, LEGACY_NONCE_LEN, nonce.len);
    memcpy(m->nonce, nonce.ptr, sizeof(m->nonce));
    return 0;
}

/* `doing` begins the message, as the reference's does. */
static int read_point(struct api_request *req, const char *doing, struct slice spki,
                      struct message *m)
{
    struct error err = {0};

    if (p384_point_from_spki(spki, m->peer, &err) < 0)
        return refuse(req, "invalid_public_key", "%s failed: client_public_key is %s", doing,
                      err.msg);
    return 0;
}

static int read_encoding(struct api_request *req, const json_t *object, struct message *m)
{
    struct slice encoding = slice_str("utf8");

    if (field_string(req, object, "plaintext_encoding", FIELD_OPTIONAL, &encoding) < 0)
        return -1;
    m->base64 = slice_equal_str(encoding, "base64");
    if (!m->base64 && !slice_equal_str(encoding, "utf8"))
        return refuse(req, "invalid_value", "plaintext_encoding must be \"utf8\" or \"base64\"");
    return 0;
}

static int read_decrypt(struct api_request *req, struct message *m)
{
    AUTO_BUF struct buf spki = BUF(API_BODY_MAX);
    AUTO_JSON json_t *object = NULL;
    struct slice nonce, key, data;

    if (read_object(req, api_body(req), &object) < 0 ||
        field_string(req, object, "nonce", FIELD_REQUIRED, &nonce) < 0 ||
        field_string(req, object, "client_public_key", FIELD_REQUIRED, &key) < 0 ||
        field_string(req, object, "encrypted_data", FIELD_REQUIRED, &data) < 0 ||
        read_encoding(req, object, m) < 0 || read_nonce(req, nonce, m) < 0 ||
        read_hex(req, "client_public_key", key, &spki) < 0 ||
        read_hex(req, "encrypted_data", data, &m->sealed) < 0)
        return -1;
    return read_point(req, "Decryption", buf_slice(&spki), m);
}

static int read_encrypt(struct api_request *req, struct message *m)
{
    AUTO_BUF struct buf spki = BUF(API_BODY_MAX);
    struct slice key;

    if (read_object(req, api_body(req), &m->request) < 0 ||
        field_string(req, m->request, "plaintext", FIELD_REQUIRED, &m->plaintext) < 0 ||
        field_string(req, m->request, "client_public_key", FIELD_REQUIRED, &key) < 0 ||
        read_hex(req, "client_public_key", key, &spki) < 0)
        return -1;
    return read_point(req, "Encryption", buf_slice(&spki), m);
}

/* ---- replay ---- */

/* True when the message is new; else the request was answered. */
static bool is_new(struct api_request *req, enum replay_verdict verdict)
{
    if (verdict == REPLAY_SEEN)
        refuse(req, "nonce_reused", "Nonce reuse detected for client_public_key");
    else if (verdict == REPLAY_FULL)
        api_fail(req, 503, "replay_cache_full",
                 "no room to remember another message; the enclave must be restarted");
    return verdict == REPLAY_NEW;
}

/* ---- decrypt ---- */

static void open_message(void *data)
{
    struct message *m = data;

    m->failed = p384_box_open(m->api->keys.encryption, m->peer, m->nonce, buf_slice(&m->sealed),
                              &m->opened) < 0;
    m->not_utf8 = !m->failed && !m->base64 && !utf8_valid(buf_slice(&m->opened));
}

static void put_plaintext(struct json_writer *w, const struct message *m)
{
    AUTO_BUF struct buf text = BUF_SECRET(SIZE_MAX / 2);

    json_put_key(w, m->base64 ? "plaintext_base64" : "plaintext");
    if (!m->base64)
        json_put_text(w, buf_slice(&m->opened));
    else if (base64_encode(buf_slice(&m->opened), &text) < 0)
        w->failed = true;
    else
        json_put_text(w, buf_slice(&text));
}

static void release_plaintext(struct api_request *req, const struct message *m)
{
    /* Controls are six times as long in JSON. */
    AUTO_BUF struct buf body = BUF_SECRET(6 * m->opened.len + 64);
    struct json_writer w = {.out = &body};

    json_put_object(&w);
    put_plaintext(&w, m);
    json_put_object_end(&w);
    if (w.failed)
        api_fail(req, 500, "internal", "the reply could not be written");
    else
        api_reply_json(req, 200, &body);
}

/* What was not authentic, or cannot be released, leaves no trace in the cache. */
static void opened(struct api_request *req, void *data)
{
    AUTO_MESSAGE struct message *m = data;
    uint8_t fingerprint[REPLAY_LEN];

    if (m->failed) {
        refuse(req, "decryption_failed",
               "Decryption failed: encrypted_data was not made with these keys and this nonce, or "
               "was changed");
        return;
    }
    if (m->not_utf8) {
        refuse(req, "plaintext_not_utf8",
               "Invalid UTF-8 in plaintext: ask for it with \"plaintext_encoding\":\"base64\"");
        return;
    }
    message_fingerprint(m, fingerprint);
    if (is_new(req, replay_take(m->api->replay, fingerprint)))
        release_plaintext(req, m);
}

void handle_decrypt(struct api_request *req, void *arg)
{
    struct capsule_api *api = arg;
    AUTO_MESSAGE struct message *m = message_new(api);
    uint8_t fingerprint[REPLAY_LEN];
    struct message *job;

    if (read_decrypt(req, m) < 0)
        return;
    /* Asked now to save the work, and again when the plaintext is released. */
    message_fingerprint(m, fingerprint);
    if (!is_new(req, replay_check(api->replay, fingerprint)))
        return;
    job = m;
    m = NULL;
    api_run_in(req, api->crypto_pool.pool, job, open_message, opened, message_drop);
}

/* ---- encrypt ---- */

static void seal_message(void *data)
{
    struct message *m = data;

    m->failed =
        p384_box_seal(m->api->keys.encryption, m->peer, m->nonce, m->plaintext, &m->sealed) < 0;
}

static void sealed(struct api_request *req, void *data)
{
    AUTO_MESSAGE struct message *m = data;
    AUTO_BUF struct buf body = BUF(2 * m->sealed.len + 512);
    struct json_writer w = {.out = &body};
    uint8_t spki[P384_SPKI_LEN];

    p384_point_spki(m->api->keys.encryption_point, spki);
    /* Hex without 0x, unlike all other routes. */
    json_put_object(&w);
    json_put_key(&w, "encrypted_data");
    json_put_hex(&w, "", buf_slice(&m->sealed));
    json_put_key(&w, "enclave_public_key");
    json_put_hex(&w, "", slice_of(spki, sizeof(spki)));
    json_put_key(&w, "nonce");
    json_put_hex(&w, "", slice_of(m->nonce, sizeof(m->nonce)));
    json_put_object_end(&w);
    if (m->failed || w.failed)
        api_fail(req, 500, "internal", "the message could not be sealed");
    else
        api_reply_json(req, 200, &body);
}

/*
 * The nonce is remembered before it is used, so that the reply cannot be sent back to decrypt. One
 * that was used before would give away both messages.
 */
static void seal_with_nonce(struct api_request *req, void *data, const uint8_t *nonce)
{
    AUTO_MESSAGE struct message *m = data;
    uint8_t fingerprint[REPLAY_LEN];
    enum replay_verdict verdict;
    struct message *job;

    memcpy(m->nonce, nonce, sizeof(m->nonce));
    message_fingerprint(m, fingerprint);
    verdict = replay_take(m->api->replay, fingerprint);
    if (verdict == REPLAY_SEEN) {
        api_fail(req, 500, "nsm_failure", "the NSM gives random bytes that it gave before");
        return;
    }
    if (!is_new(req, verdict))
        return;
    job = m;
    m = NULL;
    api_run_in(req, job->api->crypto_pool.pool, job, seal_message, sealed, message_drop);
}

void handle_encrypt(struct api_request *req, void *arg)
{
    AUTO_MESSAGE struct message *m = message_new(arg);
    struct message *waiting;

    if (read_encrypt(req, m) < 0)
        return;
    waiting = m;
    m = NULL;
    random_draw(arg, req, P384_BOX_NONCE_LEN, waiting, seal_with_nonce, message_drop);
}
