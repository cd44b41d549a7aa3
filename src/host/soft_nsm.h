/*
 * Serves the soft NSM to an enclave without hardware (port offset 3 of the block). Requests are
 * answered by threads, because they sign; measuring the EIF, which takes as long as reading it,
 * happens beside the enclave's start and delays only the first request.
 */
#ifndef CAPSULE_HOST_SOFT_NSM_H
#define CAPSULE_HOST_SOFT_NSM_H

#include "vsock/carrier.h"

#include <stdbool.h>

struct event_base;
struct host_soft_nsm;

#define HOST_SOFT_NSM_MAX 8 /* connections, each with a thread */

int host_soft_nsm_start(struct event_base *base, struct carrier *carrier, const char *eif_path,
                        bool debug, struct host_soft_nsm **out, struct error *err);
/* Ends all connections and waits for their threads. NULL is fine. */
void host_soft_nsm_stop(struct host_soft_nsm *s);

#endif
