/* POST /v1/eth/sign and /v1/eth/sign-tx: spec/capsule-api.md sections 5.2, 5.3 and 6.3. */
#include "api/internal.h"
#include "api/signing.h"

/* A signature that waits for the document that goes with it. */
struct held {
    const struct capsule_api *api;
    struct eth_signed made;
    struct attestation attestation;
};

static void held_free(void *data)
{
    struct held *h = data;

    eth_signed_release(&h->made);
    attestation_release(&h->attestation);
    free(h);
}

static void reply(const struct capsule_api *api, struct api_request *req,
                  const struct eth_signed *made, struct slice document)
{
    size_t size = eth_signed_size(made) + 2 * document.len + 64;
    AUTO_BUF struct buf body = BUF(size);
    struct json_writer w = {.out = &body};

    json_put_object(&w);
    eth_signed_put(made, api->keys.address, &w);
    json_put_key(&w, "attestation");
    if (document.len)
        json_put_base64(&w, document);
    else
        json_put_null(&w);
    json_put_object_end(&w);
    if (w.failed)
        api_fail(req, 500, "internal", "the reply does not fit");
    else
        api_reply_json(req, 200, &body);
}

static void ask(void *data)
{
    struct held *h = data;

    attestation_ask(&h->attestation);
}

/* Without the document there is no signature either: no half results. */
static void finish(struct api_request *req, void *data)
{
    struct held *h = data;

    if (h->attestation.failed)
        attestation_fail(req, &h->attestation);
    else
        reply(h->api, req, &h->made, buf_slice(&h->attestation.document));
    held_free(h);
}

/* What the document binds: the hash, the key that signed, and the enclave's own statements. */
static int fill_attestation(const struct capsule_api *api, const struct eth_signed *made,
                            struct attestation *out)
{
    struct json_writer w = {.out = &out->user_data};
    uint8_t spki[K256_SPKI_LEN];

    k256_point_spki(api->keys.eth_point, spki);
    json_put_object(&w);
    attestation_end_user_data(api, &w);
    out->has_nonce = true;
    return w.failed || buf_append(&out->nonce, made->hash, sizeof(made->hash)) < 0 ||
                   buf_append(&out->public_key, spki, sizeof(spki)) < 0
               ? -1
               : 0;
}

/* Answers with the signature, now or once the NSM has attested it; `made` is taken over. */
static void answer(struct capsule_api *api, struct api_request *req, bool attested,
                   struct eth_signed *made)
{
    struct held *h;

    if (!attested) {
        reply(api, req, made, (struct slice){0});
        return;
    }
    h = xcalloc(1, sizeof(*h));
    h->api = api;
    attestation_init(&h->attestation, api);
    if (fill_attestation(api, made, &h->attestation) < 0) {
        held_free(h);
        api_fail(req, 500, "internal", "the attestation could not be asked for");
        return;
    }
    h->made = *made;
    *made = (struct eth_signed){0};
    api_run(req, h, ask, finish, held_free);
}

void handle_eth_sign(struct api_request *req, void *arg)
{
    CLEANUP(eth_signed_release) struct eth_signed made = {0};
    struct capsule_api *api = arg;
    struct eth_message_request request;
    struct error err = {0};

    if (eth_message_request_read(req, &request) < 0)
        return;
    if (eth_sign_message(api->keys.eth, &request, &made, &err) < 0)
        api_fail(req, 500, "internal", err.msg);
    else
        answer(api, req, request.include_attestation, &made);
}

void handle_eth_sign_tx(struct api_request *req, void *arg)
{
    CLEANUP(eth_tx_request_release) struct eth_tx_request request = {0};
    CLEANUP(eth_signed_release) struct eth_signed made = {0};
    struct capsule_api *api = arg;
    struct error err = {0};

    if (eth_tx_request_read(req, &request) < 0)
        return;
    if (eth_sign_tx(api->keys.eth, &request, &made, &err) < 0)
        api_fail(req, 500, "internal", err.msg);
    else
        answer(api, req, request.include_attestation, &made);
}
