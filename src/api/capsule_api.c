#include "api/internal.h"

#include "base/log.h"
#include "base/text.h"
#include "codec/json.h"

#include <unistd.h>

/* ---- keys ---- */

void handle_eth_address(struct api_request *req, void *arg)
{
    const struct capsule_api *api = arg;
    AUTO_BUF struct buf body = BUF(1024);
    struct json_writer w = {.out = &body};

    json_put_object(&w);
    json_put_key(&w, "address");
    json_put_cstr(&w, api->keys.address);
    json_put_key(&w, "public_key");
    json_put_hex(&w, "0x", slice_of(api->keys.eth_point, K256_POINT_LEN));
    json_put_object_end(&w);
    api_reply_json(req, 200, &body);
}

void handle_public_key(struct api_request *req, void *arg)
{
    const struct capsule_api *api = arg;
    AUTO_BUF struct buf body = BUF(2048);
    AUTO_BUF struct buf pem = BUF(1024);
    struct json_writer w = {.out = &body};
    uint8_t spki[P384_SPKI_LEN];

    p384_point_spki(api->keys.encryption_point, spki);
    if (p384_point_pem(api->keys.encryption_point, &pem) < 0) {
        api_fail(req, 500, "internal", "the public key could not be written");
        return;
    }
    json_put_object(&w);
    json_put_key(&w, "public_key_der");
    json_put_hex(&w, "0x", slice_of(spki, sizeof(spki)));
    json_put_key(&w, "public_key_pem");
    json_put_text(&w, buf_slice(&pem));
    json_put_object_end(&w);
    api_reply_json(req, 200, &body);
}

/* ---- the table ---- */

static const struct api_route primary_routes[] = {
    {"GET", "/v1/eth/address", handle_eth_address},
    {"GET", "/v1/encryption/public_key", handle_public_key},
    {"GET", "/v1/random", handle_random},
    {"POST", ATTESTATION_PATH, handle_attestation},
    {"POST", "/v1/eth/sign", handle_eth_sign},
    {"POST", "/v1/eth/sign-tx", handle_eth_sign_tx},
    {"POST", "/v1/encryption/decrypt", handle_decrypt},
    {"POST", "/v1/encryption/encrypt", handle_encrypt},
    {"POST", "/v1/s3/get", handle_no_s3},
    {"POST", "/v1/s3/put", handle_no_s3},
    {"POST", "/v1/s3/delete", handle_no_s3},
    {"POST", "/v1/s3/list", handle_no_s3},
    {"POST", "/v1/kms/derive", handle_no_kms},
    {"POST", "/v1/kms/kv/get", handle_no_kms},
    {"POST", "/v1/kms/kv/put", handle_no_kms},
    {"POST", "/v1/kms/kv/delete", handle_no_kms},
    {"GET", "/v1/app-wallet/address", handle_no_wallet},
    {"POST", "/v1/app-wallet/sign", handle_no_wallet},
    {"POST", "/v1/app-wallet/sign-tx", handle_no_wallet},
    {0},
};

/* ---- life ---- */

static int start_pools(struct event_base *base, struct capsule_api *api, struct error *err)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t threads = processors < 1                    ? 1
                     : processors < API_CRYPTO_THREADS ? (size_t)processors
                                                       : API_CRYPTO_THREADS;

    if (loop_pool_start(&api->nsm_pool, base, API_NSM_THREADS, API_NSM_QUEUE, err) < 0 ||
        loop_pool_start(&api->crypto_pool, base, threads, API_CRYPTO_QUEUE, err) < 0)
        return -1;
    return reservoir_new(base, api->nsm, &api->reservoir, err);
}

static int start_servers(struct event_base *base, const struct capsule_api_config *config,
                         struct capsule_api *api, struct error *err)
{
    struct api_config primary = {.name = "api",
                                 .port = config->port,
                                 .max = API_PRIMARY_MAX,
                                 .routes = primary_routes,
                                 .arg = api,
                                 .pool = api->nsm_pool.pool};
    struct api_config aux = {.name = "aux-api",
                             .port = config->aux_port,
                             .max = API_AUX_MAX,
                             .routes = aux_routes,
                             .arg = api,
                             .pool = api->nsm_pool.pool,
                             .work_ms = config->aux_ms ? config->aux_ms : API_AUX_MS,
                             .decorate = aux_decorate};

    if (api_server_start(base, &primary, &api->primary, err) < 0)
        return error_wrap(err, "Capsule API");
    if (config->aux_port && api_server_start(base, &aux, &api->aux, err) < 0)
        return error_wrap(err, "Aux API");
    return 0;
}

int capsule_api_start(struct event_base *base, const struct capsule_api_config *config,
                      struct capsule_api **out, struct error *err)
{
    struct capsule_api *api = xcalloc(1, sizeof(*api));

    api->nsm = config->nsm;
    if (api_keys_draw(&api->keys, config->nsm, err) < 0 ||
        replay_new(config->replay_max, &api->replay, err) < 0 || start_pools(base, api, err) < 0 ||
        start_servers(base, config, api, err) < 0)
        goto fail;
    *out = api;
    return 0;
fail:
    capsule_api_stop(api);
    return -1;
}

void capsule_api_drain(struct capsule_api *api)
{
    if (!api)
        return;
    api_server_drain(api->primary);
    if (api->aux)
        api_server_drain(api->aux);
}

void capsule_api_stop(struct capsule_api *api)
{
    if (!api)
        return;
    /* The pools first: their jobs answer requests that the servers own. */
    loop_pool_stop(&api->nsm_pool);
    loop_pool_stop(&api->crypto_pool);
    reservoir_free(api->reservoir);
    api_server_stop(api->aux);
    api_server_stop(api->primary);
    replay_free(api->replay);
    api_keys_free(&api->keys);
    free(api);
}
