/*
 * The enclave's way out: an HTTP proxy on 127.0.0.1 for CONNECT and absolute-form requests, which
 * checks the egress policy and reaches the world through the host's connector
 * (spec/wire-protocols.md sections 5, 6 and 9.4).
 */
#ifndef CAPSULE_ENCLAVE_EGRESS_H
#define CAPSULE_ENCLAVE_EGRESS_H

#include "base/error.h"
#include "manifest/policy.h"

struct carrier;
struct event_base;
struct enclave_egress;

#define EGRESS_CONNECTIONS_MAX 1024 /* then accept pauses */

struct enclave_egress_config {
    const struct policy *policy; /* borrowed for the life of the service */
    struct carrier *carrier;     /* borrowed; enclave side */
    uint16_t proxy_port;         /* 0: any, for tests */
};

struct enclave_egress_stats {
    uint64_t tunnels;             /* CONNECT and upgrades that were established */
    uint64_t requests;            /* plain HTTP requests that were answered by the origin */
    uint64_t reused;              /* of these, over a connection that had served before */
    uint64_t refused;             /* by policy */
    uint64_t failed;              /* for any other reason */
    uint64_t bytes_out, bytes_in; /* of tunnels that have ended */
    size_t open;
};

/* Binds 127.0.0.1:proxy_port and serves from the loop. */
int enclave_egress_start(struct event_base *base, const struct enclave_egress_config *config,
                         struct enclave_egress **out, struct error *err);
uint16_t enclave_egress_port(const struct enclave_egress *e);
struct enclave_egress_stats enclave_egress_stats_of(const struct enclave_egress *e);
/* Stops accepting and ends idle connections; what is under way goes on. */
void enclave_egress_drain(struct enclave_egress *e);
/* Ends everything and frees it. NULL is fine. */
void enclave_egress_stop(struct enclave_egress *e);

#endif
