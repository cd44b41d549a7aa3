/* Inside enclave/: one connection through the host's connector (wire-protocols section 5.2). */
#ifndef CAPSULE_ENCLAVE_EGRESS_DIAL_H
#define CAPSULE_ENCLAVE_EGRESS_DIAL_H

#include "manifest/policy.h"

struct carrier;
struct egress_dial;
struct event_base;

/* The host needs at most 5 s for the name and 10 s to connect; the rest is its queue. */
#define EGRESS_EXCHANGE_MS 20000

/* Why there is no connection; the strings live as long as the call. */
struct egress_failure {
    int status;         /* for the app: 403, 502, 503 or 504 */
    const char *reason; /* one word, for X-Capsule-Egress */
    const char *message;
};

/*
 * Starts one. `done` is called once from the loop, never from within this call: with a connected
 * descriptor that the callee owns, or with -1 and the failure. Not a byte behind the reply frame
 * has been read. The dial is gone when `done` runs.
 */
struct egress_dial *
egress_dial_start(struct event_base *base, struct carrier *carrier,
                  const struct policy_target *target,
                  void (*done)(void *arg, int fd, const struct egress_failure *failure), void *arg);
/* Drops an unfinished one; `done` is not called. NULL is fine. */
void egress_dial_cancel(struct egress_dial *d);

#endif
