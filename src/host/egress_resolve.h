/*
 * Inside host/: names to addresses on the loop. libevent's resolver, because getaddrinfo(3) needs
 * shared libraries that a static program has not got. An answer too long for a packet is asked for
 * again over TCP.
 */
#ifndef CAPSULE_HOST_EGRESS_RESOLVE_H
#define CAPSULE_HOST_EGRESS_RESOLVE_H

#include "codec/ip.h"

struct event_base;
struct lookup;
struct resolver;

#define RESOLVE_MS       5000 /* from the start of a lookup, not counting the wait for its turn */
#define RESOLVE_PARALLEL 64
#define RESOLVE_MAX      32 /* addresses of one name */

struct resolver *resolver_new(struct event_base *base, const char *hosts_file,
                              const char *resolv_conf);
/* Every lookup must be done or cancelled. Cancelled ones may need one more turn of the loop. */
void resolver_free(struct resolver *r);

/*
 * Starts a lookup. `done` is called once from the loop, never from within this call: with 1 to
 * RESOLVE_MAX addresses, or with none and the reason (`timeout` true when the time ran out). The
 * lookup is gone when `done` runs.
 */
struct lookup *resolver_lookup(struct resolver *r, const char *name,
                               void (*done)(void *arg, const struct ip_addr *addrs, size_t count,
                                            const char *reason, bool timeout),
                               void *arg);
/* `done` will not be called. NULL is fine. */
void lookup_cancel(struct lookup *l);

#endif
