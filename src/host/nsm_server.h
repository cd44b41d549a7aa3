/*
 * The soft NSM on the host-enclave link, for the launchers without Nitro hardware (design.md
 * section 2; framing: spec/nsm.md section 6.1). Signing runs beside the loop, one request at a
 * time.
 */
#ifndef CAPSULE_HOST_NSM_SERVER_H
#define CAPSULE_HOST_NSM_SERVER_H

#include "nsm/soft.h"
#include "vsock/carrier.h"

struct event_base;
struct nsm_server;

/* Listens on the NSM port of the carrier's block. `config` is borrowed for the call. */
int nsm_server_start(struct event_base *base, struct carrier *carrier,
                     const struct soft_nsm_config *config, struct nsm_server **out,
                     struct error *err);
/* Ends all connections. NULL is fine. */
void nsm_server_stop(struct nsm_server *s);

#endif
