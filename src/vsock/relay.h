/*
 * Two-way copy between two stream sockets. The end of one direction is passed on as a shutdown and
 * the other direction continues; a reset is passed on as a reset. A side that reads slowly stops
 * the reading of the other: at most 256 KiB wait in a direction. Small messages go through one
 * shared buffer; a direction that fills it moves to splice(2), so an idle stream holds no memory
 * but its record.
 */
#ifndef CAPSULE_VSOCK_RELAY_H
#define CAPSULE_VSOCK_RELAY_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct relay;

#define RELAY_HALF_CLOSED_MS 300000 /* without a byte once one direction has ended */

struct relay_totals {
    uint64_t a_to_b;
    uint64_t b_to_a;
    bool reset; /* ended by an error, a reset or the idle limit instead of two clean ends */
};

/*
 * Starts copying between two connected non-blocking sockets, both owned by the relay. `ended` runs
 * once, from the loop, after both are closed; the relay is gone then. TCP sides get TCP_NODELAY and
 * keepalive. All relays of a process belong to one thread.
 */
struct relay *relay_new(struct event_base *base, int a, int b,
                        void (*ended)(void *arg, const struct relay_totals *totals), void *arg);
/* Bytes that were read from `a` before the relay began; they go to `b` first. At most 256 KiB. */
int relay_seed(struct relay *r, struct slice from_a, struct error *err);
/* Overrides RELAY_HALF_CLOSED_MS. */
void relay_set_idle_limit(struct relay *r, int64_t half_closed_ms);
enum relay_side {
    RELAY_A,
    RELAY_B
};
/*
 * That side is a link that does not pass on the end of one direction alone
 * (carrier_half_closes()): what ends there was closed, and not reset. With `end_both` the end of
 * the other side closes the link too, which else nobody would hear of before the idle limit.
 */
void relay_set_whole_link(struct relay *r, enum relay_side side, bool end_both);
/* Resets both sides and frees the relay without calling `ended`. NULL is fine. */
void relay_abort(struct relay *r);

/* Closes a socket so that its peer sees a reset where the protocol can say so (TCP). */
void socket_abort(int *fd);

#endif
