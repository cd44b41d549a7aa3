#include "api/internal.h"

#include "base/log.h"
#include "base/text.h"
#include "codec/json.h"

#include <stdio.h>

#define RANDOM_LEN 32

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

/* ---- randomness ---- */

struct random_job {
    struct nsm *nsm;
    uint8_t bytes[RANDOM_LEN];
    struct error err;
    bool failed;
};

static void random_free(void *data)
{
    mem_wipe(data, sizeof(struct random_job));
    free(data);
}

static void random_ask(void *data)
{
    struct random_job *job = data;

    job->failed = nsm_random(job->nsm, job->bytes, sizeof(job->bytes), &job->err) < 0;
}

static void random_finish(struct api_request *req, void *data)
{
    AUTO_BUF struct buf body = BUF_SECRET(256);
    struct json_writer w = {.out = &body};
    struct random_job *job = data;
    char hex[2 + 2 * RANDOM_LEN + 1] = "0x";

    if (job->failed) {
        api_fail(req, 500, "nsm_failure", job->err.msg);
    } else {
        hex_encode(slice_of(job->bytes, sizeof(job->bytes)), hex + 2);
        json_put_object(&w);
        json_put_key(&w, "random_bytes");
        json_put_cstr(&w, hex);
        json_put_object_end(&w);
        api_reply_json(req, 200, &body);
    }
    mem_wipe(hex, sizeof(hex));
    random_free(job);
}

void handle_random(struct api_request *req, void *arg)
{
    struct capsule_api *api = arg;
    struct random_job *job = xcalloc(1, sizeof(*job));

    job->nsm = api->nsm;
    api_run(req, job, random_ask, random_finish, random_free);
}

/* ---- the table ---- */

/* Part of the interface, but not of this version: said so, instead of a 404 that hides a typo. */
static void handle_later(struct api_request *req, void *arg)
{
    char text[128];

    (void)arg;
    snprintf(text, sizeof(text), "%.64s is not available in this version", api_path(req));
    api_fail(req, 501, "not_available", text);
}

static const struct api_route primary_routes[] = {
    {"GET", "/v1/eth/address", handle_eth_address},
    {"GET", "/v1/encryption/public_key", handle_public_key},
    {"GET", "/v1/random", handle_random},
    {"POST", ATTESTATION_PATH, handle_attestation},
    {"POST", "/v1/eth/sign", handle_eth_sign},
    {"POST", "/v1/eth/sign-tx", handle_eth_sign_tx},
    {"POST", "/v1/encryption/decrypt", handle_later},
    {"POST", "/v1/encryption/encrypt", handle_later},
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

static void on_pool_ready(evutil_socket_t fd, short what, void *arg)
{
    struct capsule_api *api = arg;

    (void)fd;
    (void)what;
    pool_collect(api->pool);
}

static int start_servers(struct event_base *base, const struct capsule_api_config *config,
                         struct capsule_api *api, struct error *err)
{
    struct api_config primary = {.name = "api",
                                 .port = config->port,
                                 .max = API_PRIMARY_MAX,
                                 .routes = primary_routes,
                                 .arg = api,
                                 .pool = api->pool};
    struct api_config aux = {.name = "aux-api",
                             .port = config->aux_port,
                             .max = API_AUX_MAX,
                             .routes = aux_routes,
                             .arg = api,
                             .pool = api->pool,
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
        pool_new(API_NSM_THREADS, API_NSM_QUEUE, &api->pool, err) < 0)
        goto fail;
    api->pool_ready = event_new(base, pool_fd(api->pool), EV_READ | EV_PERSIST, on_pool_ready, api);
    if (!api->pool_ready)
        abort(); /* out of memory */
    event_add(api->pool_ready, NULL);
    if (start_servers(base, config, api, err) < 0)
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
    /* The pool first: its jobs answer requests that the servers own. */
    pool_free(api->pool);
    api_server_stop(api->aux);
    api_server_stop(api->primary);
    if (api->pool_ready)
        event_free(api->pool_ready);
    api_keys_free(&api->keys);
    free(api);
}
