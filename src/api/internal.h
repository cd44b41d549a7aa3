/* What the route families share. Private to the room. */
#ifndef CAPSULE_API_INTERNAL_H
#define CAPSULE_API_INTERNAL_H

#include "api/capsule_api.h"
#include "codec/json.h"

#include <event2/event.h>

struct capsule_api {
    struct api_keys keys;
    struct nsm *nsm;
    struct pool *pool;
    struct event *pool_ready;
    struct api_server *primary, *aux;
};

/* Of both APIs; on the Aux API its replies carry CORS headers. */
#define ATTESTATION_PATH "/v1/attestation"

/* Handlers; `arg` is the struct capsule_api. */
void handle_eth_address(struct api_request *req, void *arg);
void handle_eth_sign(struct api_request *req, void *arg);
void handle_eth_sign_tx(struct api_request *req, void *arg);
void handle_public_key(struct api_request *req, void *arg);
void handle_random(struct api_request *req, void *arg);
void handle_attestation(struct api_request *req, void *arg);
void handle_no_s3(struct api_request *req, void *arg);
void handle_no_kms(struct api_request *req, void *arg);
void handle_no_wallet(struct api_request *req, void *arg);

/* A document to be asked for; lives from the handler to the reply, alone or in a larger job. */
struct attestation {
    struct nsm *nsm;
    bool has_nonce;
    struct buf nonce, public_key, user_data;
    struct buf document; /* the answer, unless `failed` */
    struct error err;
    bool failed;
};

/* Binds nothing yet. */
void attestation_init(struct attestation *a, const struct capsule_api *api);
void attestation_release(struct attestation *a);
/* Ends the object of `user_data` with what the enclave itself states (section 6.4). */
void attestation_end_user_data(const struct capsule_api *api, struct json_writer *w);
/* Asks the NSM: blocks, so it belongs into the pool. */
void attestation_ask(struct attestation *a);
/* Answers the request of a failed one. */
void attestation_fail(struct api_request *req, const struct attestation *a);

/* Answers a request for an attestation whose JSON is `body`. */
void attestation_answer(struct capsule_api *api, struct api_request *req, struct slice body);

/* The Aux API's route table and header hook. */
extern const struct api_route aux_routes[];
void aux_decorate(struct api_request *req, void *arg);

#endif
