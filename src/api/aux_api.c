/*
 * The Aux API: what strangers may reach (spec/capsule-api.md section 9). It calls the handlers of
 * the Capsule API in process; for attestations it builds a new request from the two members that a
 * stranger may choose, so that nothing else can come through.
 */
#include "api/internal.h"

#include "codec/json.h"

#include <string.h>

static void copy_member(struct json_writer *w, struct slice body, const char *name)
{
    struct slice value;

    if (!json_member_raw(body, name, &value))
        return;
    json_put_key(w, name);
    json_put_source(w, value);
}

static void handle_aux_attestation(struct api_request *req, void *arg)
{
    AUTO_BUF struct buf clean = BUF(API_BODY_MAX);
    struct json_writer w = {.out = &clean};
    struct slice body = api_body(req);
    AUTO_JSON json_t *object = NULL;
    enum json_problem problem;
    struct error err = {0};

    if (body.len > 0 && json_read_object(body, &object, &problem, &err) < 0) {
        if (problem == JSON_INVALID)
            api_fail(req, 400, json_problem_code(problem), "Invalid JSON in request body");
        else
            api_fail(req, 400, json_problem_code(problem), err.msg);
        return;
    }
    json_put_object(&w);
    if (object) {
        copy_member(&w, body, "nonce");
        copy_member(&w, body, "user_data");
    }
    json_put_object_end(&w);
    if (w.failed)
        api_fail(req, 500, "internal", "the request could not be written anew");
    else
        attestation_answer(arg, req, buf_slice(&clean));
}

static void handle_preflight(struct api_request *req, void *arg)
{
    (void)arg;
    api_header(req, "Access-Control-Allow-Methods", "POST, OPTIONS");
    api_header(req, "Access-Control-Allow-Headers", "Content-Type");
    api_header(req, "Access-Control-Max-Age", "86400");
    api_reply(req, 204, NULL, NULL);
}

const struct api_route aux_routes[] = {
    {"GET", "/v1/eth/address", handle_eth_address},
    {"GET", "/v1/encryption/public_key", handle_public_key},
    {"POST", ATTESTATION_PATH, handle_aux_attestation},
    {"OPTIONS", ATTESTATION_PATH, handle_preflight},
    {0},
};

void aux_decorate(struct api_request *req, void *arg)
{
    (void)arg;
    if (strcmp(api_path(req), ATTESTATION_PATH) == 0)
        api_header(req, "Access-Control-Allow-Origin", "*");
}
