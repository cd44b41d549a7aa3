/*
 * Ingress inside the enclave: vsock port P is relayed to 127.0.0.1:P (spec/wire-protocols.md
 * sections 4 and 9.3). While the app is starting a refused connection is tried again, so that an
 * early client waits instead of being turned away.
 */
#ifndef CAPSULE_ENCLAVE_INGRESS_H
#define CAPSULE_ENCLAVE_INGRESS_H

#include "vsock/carrier.h"

#include <stddef.h>
#include <stdint.h>

struct event_base;
struct enclave_ingress;

#define ENCLAVE_INGRESS_MAX      4096 /* connections open at a time on one port */
#define ENCLAVE_INGRESS_RETRY_MS 5000 /* after the app's start */

int enclave_ingress_start(struct event_base *base, struct carrier *carrier, const uint16_t *ports,
                          size_t count, struct enclave_ingress **out, struct error *err);
/* The app has just been started: the time for retries begins (until then they do not end). */
void enclave_ingress_app_started(struct enclave_ingress *in);
/* No new connections; open ones go on. */
void enclave_ingress_drain(struct enclave_ingress *in);
size_t enclave_ingress_open(const struct enclave_ingress *in);
/* Of all ports together. */
struct listener_stats enclave_ingress_stats_of(const struct enclave_ingress *in);
/* Resets what is open and frees everything. NULL is fine. */
void enclave_ingress_stop(struct enclave_ingress *in);

#endif
