/* What the route families share. Private to the room. */
#ifndef CAPSULE_API_INTERNAL_H
#define CAPSULE_API_INTERNAL_H

#include "api/capsule_api.h"

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
void handle_public_key(struct api_request *req, void *arg);
void handle_random(struct api_request *req, void *arg);
void handle_attestation(struct api_request *req, void *arg);
void handle_no_s3(struct api_request *req, void *arg);
void handle_no_kms(struct api_request *req, void *arg);
void handle_no_wallet(struct api_request *req, void *arg);

/* Answers a request for an attestation whose JSON is `body`. */
void attestation_answer(struct capsule_api *api, struct api_request *req, struct slice body);

/* The Aux API's route table and header hook. */
extern const struct api_route aux_routes[];
void aux_decorate(struct api_request *req, void *arg);

#endif
