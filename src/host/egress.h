/*
 * The host's end of egress: connects to what the enclave's proxy asks for
 * (spec/wire-protocols.md sections 5.2, 6.5 steps 7 to 10, and 9.4). It applies the packaged policy
 * once more, and to the addresses that names resolve to; that limits what an app can reach on the
 * instance, and protects nothing from the host itself.
 */
#ifndef CAPSULE_HOST_EGRESS_H
#define CAPSULE_HOST_EGRESS_H

#include "base/error.h"
#include "manifest/policy.h"

struct carrier;
struct event_base;
struct host_egress;

#define HOST_EGRESS_CONNECTIONS_MAX 1024 /* then accept pauses */
#define HOST_EGRESS_HANDSHAKE_MS    5000

struct host_egress_config {
    const struct policy
        *policy;             /* of the packaged manifest; borrowed for the life of the service */
    struct carrier *carrier; /* borrowed; host side */
    const char *hosts_file;  /* NULL: /etc/hosts */
    const char *resolv_conf; /* NULL: /etc/resolv.conf */
};

struct host_egress_stats {
    uint64_t connected;
    uint64_t refused;             /* by policy */
    uint64_t failed;              /* name or connection */
    uint64_t bytes_out, bytes_in; /* of connections that have ended */
    size_t open;
};

/* Listens on the egress port of the enclave's block. EADDRINUSE in err->sys: the block is taken. */
int host_egress_start(struct event_base *base, const struct host_egress_config *config,
                      struct host_egress **out, struct error *err);
struct host_egress_stats host_egress_stats_of(const struct host_egress *e);
/* Stops accepting; what is open goes on. */
void host_egress_drain(struct host_egress *e);
/* Ends everything and frees it. NULL is fine. */
void host_egress_stop(struct host_egress *e);

#endif
