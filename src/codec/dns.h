/*
 * The little of DNS (RFC 1035) that asking for addresses over TCP needs, because libevent's
 * resolver knows UDP only: one question, and the addresses of its answer. The server is not
 * trusted.
 */
#ifndef CAPSULE_CODEC_DNS_H
#define CAPSULE_CODEC_DNS_H

#include "base/error.h"
#include "codec/ip.h"

#define DNS_QUERY_MAX 272 /* header, name of 255 bytes on the wire, type and class, with room */

enum dns_type {
    DNS_A = 1,
    DNS_AAAA = 28
};

/*
 * Appends a recursive question, without the length that precedes it on TCP. ERR_INVALID for a name
 * with a label that is empty or over 63 bytes, or over 253 bytes in all; one final dot is fine.
 */
int dns_query_write(uint16_t id, const char *name, enum dns_type type, struct buf *out,
                    struct error *err);

/*
 * Reads a whole message: the first `max` addresses of the type, none of which is success too.
 * ERR_NOT_FOUND: no such name; ERR_NET: the server says that it failed or refuses; ERR_INVALID: not
 * the answer to this question. Names in the answer are not compared: what an alias leads to is the
 * server's word.
 */
int dns_reply_parse(struct slice message, uint16_t id, enum dns_type type, struct ip_addr *out,
                    size_t max, size_t *count, struct error *err);

#endif
