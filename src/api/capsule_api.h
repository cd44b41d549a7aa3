/* The Capsule API and the Aux API (spec/capsule-api.md), on 127.0.0.1. */
#ifndef CAPSULE_API_CAPSULE_API_H
#define CAPSULE_API_CAPSULE_API_H

#include "api/keys.h"
#include "api/server.h"

#define API_NSM_THREADS    3     /* NSM calls in flight; a fourth is the reservoir's */
#define API_NSM_QUEUE      64    /* and waiting; more are answered 503 */
#define API_CRYPTO_THREADS 4     /* at most; not more than there are processors */
#define API_CRYPTO_QUEUE   256   /* one for each connection of the Capsule API */
#define API_AUX_MS         15000 /* for an Aux request that needs the NSM */

struct capsule_api;

struct capsule_api_config {
    uint16_t port;
    uint16_t aux_port; /* 0: no Aux API */
    struct nsm *nsm;   /* stays the caller's; must outlive the API */
    int64_t aux_ms;    /* 0: API_AUX_MS */
    size_t replay_max; /* messages that the replay cache holds; 0: REPLAY_MAX */
};

/*
 * Draws the keys, serves the Capsule API, then the Aux API; when the second cannot bind, the first
 * is stopped again.
 */
int capsule_api_start(struct event_base *base, const struct capsule_api_config *config,
                      struct capsule_api **out, struct error *err);
/* Answers what is under way and takes nothing new. NULL is fine, also below. */
void capsule_api_drain(struct capsule_api *api);
void capsule_api_stop(struct capsule_api *api);

#endif
