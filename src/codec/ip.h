/*
 * IP addresses as plain bytes: parsing, printing, prefixes, and the special ranges. The one place
 * that knows how addresses hide inside each other.
 */
#ifndef CAPSULE_CODEC_IP_H
#define CAPSULE_CODEC_IP_H

#include "base/slice.h"

#define IP_TEXT_MAX 46 /* longest text with its NUL: INET6_ADDRSTRLEN */

struct ip_addr {
    uint8_t family;    /* 4 or 6; 0: none */
    uint8_t bytes[16]; /* network order; IPv4 uses the first four, the rest is zero */
};

/* Strict text only: a dotted quad in decimal without leading zeros, or IPv6 of RFC 4291 section
 * 2.2. No brackets, no zone, no prefix. Returns 0 or -1. */
int ip_parse(struct slice text, struct ip_addr *out) MUST_USE;

/*
 * IPv4 as inet_aton(3) of 4.2BSD understood it: one to four parts, each decimal, octal with a
 * leading 0 or hexadecimal with a leading 0x; the last part fills the bytes that are left. Unlike
 * inet_aton, nothing may follow. Returns 0 or -1.
 */
int ip_parse_classic(struct slice text, struct ip_addr *out) MUST_USE;

/* An IPv4 address from its value, 0x7f000001 being 127.0.0.1. */
struct ip_addr ip_from_u32(uint32_t value);

/* Canonical text (RFC 5952 for IPv6), without brackets. Returns `out`. */
const char *ip_format(const struct ip_addr *addr, char out[IP_TEXT_MAX]);

bool ip_equal(const struct ip_addr *a, const struct ip_addr *b);
/* True when `addr` has the family of `net` and its first `prefix` bits. */
bool ip_in_net(const struct ip_addr *addr, const struct ip_addr *net, unsigned prefix);

/*
 * The IPv4 address that an IPv4-mapped (::ffff:a.b.c.d) or IPv4-compatible (::a.b.c.d, but not ::
 * and ::1) IPv6 address is another spelling of; any other address comes back as it is.
 */
struct ip_addr ip_unmap(const struct ip_addr *addr);

#define IP_EMBEDDED_MAX 2
/*
 * IPv4 addresses that packets to this IPv6 address may end up at: NAT64 64:ff9b::/96 (RFC 6052),
 * 6to4 2002::/16 (RFC 3056), Teredo 2001::/32 (server and client, RFC 4380). Returns how many.
 */
size_t ip_embedded(const struct ip_addr *addr, struct ip_addr out[IP_EMBEDDED_MAX]);

enum ip_scope {
    IP_GLOBAL,
    IP_PRIVATE,     /* RFC 1918, RFC 6598, unique local, old site local */
    IP_UNSPECIFIED, /* 0.0.0.0/8 and :: */
    IP_LOOPBACK,
    IP_LINK_LOCAL,
    IP_MULTICAST,
    IP_BROADCAST, /* 255.255.255.255 */
};
/* The range of the address itself; embedded addresses are the caller's business. */
enum ip_scope ip_scope(const struct ip_addr *addr);
/* "loopback", "link-local", ... */
const char *ip_scope_name(enum ip_scope scope);

#endif
