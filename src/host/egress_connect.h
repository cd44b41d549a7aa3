/* Inside host/: a TCP connection to the first of several addresses that answers (RFC 8305). */
#ifndef CAPSULE_HOST_EGRESS_CONNECT_H
#define CAPSULE_HOST_EGRESS_CONNECT_H

#include "codec/ip.h"

struct connect;
struct event_base;

#define CONNECT_MS         10000 /* for all addresses together */
#define CONNECT_STAGGER_MS 250   /* until the next address is tried beside the ones under way */
#define CONNECT_MAX        16    /* addresses tried at most */

/*
 * Sorts the addresses (at most RESOLVE_MAX) by the destination rules of RFC 6724 that need no
 * knowledge of the routing table but "is there a route", and alternates the families.
 */
void connect_order(struct ip_addr *addrs, size_t count);

/*
 * Starts to connect to `count` > 0 addresses in this order. `done` is called once from the loop,
 * never from within this call: with a connected non-blocking descriptor that the callee owns, or -1
 * and the errno of the first failure (ETIMEDOUT when the time ran out).
 */
struct connect *connect_start(struct event_base *base, const struct ip_addr *addrs, size_t count,
                              uint16_t port, void (*done)(void *arg, int fd, int sys), void *arg);
/* `done` will not be called. NULL is fine. */
void connect_cancel(struct connect *c);

#endif
