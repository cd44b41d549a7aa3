/*
 * Keeps the enclave's clock near the host's (spec/wire-protocols.md sections 7 and 9.5): rounds of
 * four samples, the one with the smallest round trip counts. Operational, not trusted: every number
 * comes from the host.
 */
#ifndef CAPSULE_ENCLAVE_CLOCK_CLIENT_H
#define CAPSULE_ENCLAVE_CLOCK_CLIENT_H

#include "vsock/carrier.h"

#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct clock_client;

struct clock_client_spec {
    struct event_base *base;
    struct carrier *carrier;
    uint64_t interval_secs;
    uint64_t max_step_secs; /* 0: no limit */
    bool measure_only;      /* where the clock belongs to the host: never set it */
};

struct clock_client_stats {
    bool synced;       /* a round has succeeded */
    int64_t offset_ns; /* of the last good round, before it was applied */
    int64_t rtt_ns;
    int64_t age_ms; /* since then */
    uint64_t rounds_good;
    uint64_t rounds_failed;
};

/* Begins the first round at once. Never fails: a host without clock service is only logged. */
struct clock_client *clock_client_start(const struct clock_client_spec *spec);
/* True once the first round has ended, well or not. */
bool clock_client_tried(const struct clock_client *c);
struct clock_client_stats clock_client_stats_of(const struct clock_client *c);
void clock_client_stop(struct clock_client *c);

#endif
