/*
 * Ingress on the host: TCP listeners whose connections are relayed to a port of the enclave
 * (spec/wire-protocols.md sections 4 and 9.3). Past the limit clients wait in the listen queue.
 */
#ifndef CAPSULE_HOST_INGRESS_H
#define CAPSULE_HOST_INGRESS_H

#include "host/publish.h"
#include "vsock/carrier.h"

#include <stdint.h>

struct event_base;
struct host_ingress;

#define HOST_INGRESS_MAX     4096 /* connections open at a time on one listener */
#define HOST_INGRESS_BOOT_MS 5000 /* how long a connection waits for an enclave that boots */

/*
 * All listeners, or none and the reason. Several may lead to one enclave port. With proxy_header
 * the stream starts with a PROXY protocol v2 header that names client and local address
 * (spec/manifest.md section 8.3): what the host says, not what the enclave knows. Host port 0 takes
 * a free one; it is logged.
 */
int host_ingress_start(struct event_base *base, struct carrier *carrier, const struct publish *list,
                       size_t count, struct host_ingress **out, struct error *err);
/* The enclave serves now: a refused dial is final from here on. */
void host_ingress_ready(struct host_ingress *in);
size_t host_ingress_count(const struct host_ingress *in);
/* Port that entry `index` is bound to. */
uint16_t host_ingress_port(const struct host_ingress *in, size_t index);
struct listener_stats host_ingress_stats(const struct host_ingress *in, size_t index);
void host_ingress_drain(struct host_ingress *in);
/* Resets what is open. NULL is fine. */
void host_ingress_stop(struct host_ingress *in);

#endif
