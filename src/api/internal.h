/* What the route families share. Private to the room. */
#ifndef CAPSULE_API_INTERNAL_H
#define CAPSULE_API_INTERNAL_H

#include "api/capsule_api.h"
#include "api/loop_pool.h"
#include "api/replay.h"
#include "api/reservoir.h"
#include "codec/json.h"

struct capsule_api {
    struct api_keys keys;
    struct nsm *nsm;
    /* Kept apart, so that no kind of work makes another wait: what the NSM does, what it has done
       ahead, and what needs a processor. */
    struct loop_pool nsm_pool;
    struct reservoir *reservoir;
    struct loop_pool crypto_pool;
    struct replay *replay;
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
void handle_decrypt(struct api_request *req, void *arg);
void handle_encrypt(struct api_request *req, void *arg);
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

/*
 * Calls use(req, data, bytes) with `len` fresh bytes of the NSM, at most RANDOM_DRAW_MAX, now or
 * once they are there; they are wiped afterwards. When there are none the request is answered and
 * `drop(data)` is called instead.
 */
#define RANDOM_DRAW_MAX 32
void random_draw(struct capsule_api *api, struct api_request *req, size_t len, void *data,
                 void (*use)(struct api_request *req, void *data, const uint8_t *bytes),
                 void (*drop)(void *data));

/* The Aux API's route table and header hook. */
extern const struct api_route aux_routes[];
void aux_decorate(struct api_request *req, void *arg);

#endif
