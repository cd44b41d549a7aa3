/*
 * Random bytes of the NSM, drawn ahead in the background, so that what needs a few of them does not
 * wait for the module behind attestations. Each byte is given out once and wiped. There is no other
 * source: when the NSM fails, so do those who wait. For the loop's thread.
 */
#ifndef CAPSULE_API_RESERVOIR_H
#define CAPSULE_API_RESERVOIR_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#define RESERVOIR_LEN         4096 /* bytes kept; drawn anew when half of them are gone */
#define RESERVOIR_WAITING_MAX 256  /* one for each connection of the Capsule API */

struct event_base;
struct nsm;
struct reservoir;

enum reservoir_result {
    RESERVOIR_READY,  /* reservoir_take() of `len` bytes will do */
    RESERVOIR_FAILED, /* the NSM gave none: *err says why */
    RESERVOIR_ENDED,  /* the reservoir is being freed */
};

/* Embedded in the caller's own record, which must live until `ready` is called. */
struct reservoir_waiter {
    size_t len; /* at most RESERVOIR_LEN */
    /* `err` is NULL unless RESERVOIR_FAILED. */
    void (*ready)(struct reservoir_waiter *w, enum reservoir_result result,
                  const struct error *err);
    STAILQ_ENTRY(reservoir_waiter) link; /* the reservoir's */
};

/* Starts to draw. `nsm` stays the caller's. */
int reservoir_new(struct event_base *base, struct nsm *nsm, struct reservoir **out,
                  struct error *err);
/* Ends all waiting and wipes. It may block for one NSM call. NULL is fine. */
void reservoir_free(struct reservoir *r);

/*
 * Calls w->ready() before it returns, when the bytes are there and nobody waits, or later, first
 * come, first served. Returns -1, and does nothing, when RESERVOIR_WAITING_MAX wait or
 * the reservoir is being freed.
 */
int reservoir_want(struct reservoir *r, struct reservoir_waiter *w);
/* Moves bytes out: at most as many as ready() has just promised. The caller wipes them. */
void reservoir_take(struct reservoir *r, uint8_t *out, size_t len);

#endif
