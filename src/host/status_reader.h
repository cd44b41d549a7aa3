/*
 * Follows the enclave's status (port 17000) until its final state: connects, reconnects, and says
 * so when the enclave is gone for good (spec/runtime.md sections 5.1 and 5.4).
 */
#ifndef CAPSULE_HOST_STATUS_READER_H
#define CAPSULE_HOST_STATUS_READER_H

#include "vsock/carrier.h"
#include "vsock/status.h"

struct event_base;
struct status_reader;

#define STATUS_FIRST_CONTACT_MS 60000
#define STATUS_RECONNECT_MS     10000
#define STATUS_UNREADABLE_MS    60000 /* without one readable line */

struct status_reader_spec {
    struct event_base *base;
    struct carrier *carrier;
    /* Every readable line; a final state comes once and is the last call. */
    void (*changed)(void *arg, const struct status *status);
    /* Instead of a final state: no contact, lost for good, or unreadable. The last call. */
    void (*failed)(void *arg, const struct error *why);
    void *arg;
};

struct status_reader *status_reader_start(const struct status_reader_spec *spec);
/*
 * Asks the enclave to stop its app; remembered and sent (again) with the next connection when there
 * is none now.
 */
void status_reader_send_stop(struct status_reader *r, uint32_t grace_ms);
/* Closing the connection after a final state tells the enclave that it was taken. */
void status_reader_stop(struct status_reader *r);

#endif
