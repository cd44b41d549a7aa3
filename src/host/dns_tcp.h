/*
 * Inside host/: one question to the name servers over TCP, for answers too long for a packet
 * (RFC 7766). One server after the other, until one answers.
 */
#ifndef CAPSULE_HOST_DNS_TCP_H
#define CAPSULE_HOST_DNS_TCP_H

#include "codec/dns.h"

struct dns_tcp;
struct evdns_base;
struct event_base;

#define DNS_TCP_ADDRS 32 /* of one answer */

/*
 * Asks the servers of `servers` (borrowed). `done` is called once from the loop, never from within
 * this call, with the addresses, or with none and the reason. It has no time limit of its own: the
 * caller cancels. The question is gone when `done` runs.
 */
struct dns_tcp *dns_tcp_ask(struct event_base *base, struct evdns_base *servers, const char *name,
                            enum dns_type type,
                            void (*done)(void *arg, const struct ip_addr *addrs, size_t count,
                                         const char *reason),
                            void *arg);
/* `done` will not be called. NULL is fine. */
void dns_tcp_cancel(struct dns_tcp *t);

#endif
