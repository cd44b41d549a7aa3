/*
 * PROXY protocol, version 2, the writing side (haproxy.org, doc/proxy-protocol.txt section 2.2):
 * what a relay puts in front of a stream so that the server learns the client's address.
 */
#ifndef CAPSULE_CODEC_PROXY_HEADER_H
#define CAPSULE_CODEC_PROXY_HEADER_H

#include "base/slice.h"

#define PROXY_HEADER_MAX 52 /* 16 bytes and two IPv6 addresses with ports */

struct sockaddr_storage;

/*
 * Writes the header for a TCP connection from `client` to `local` and returns its length. Two
 * addresses of one family give PROXY with TCP over IPv4 or IPv6, IPv4-mapped IPv6 addresses
 * counting as IPv4; anything else gives LOCAL, which says that the addresses are not known.
 */
size_t proxy_header_write(const struct sockaddr_storage *client,
                          const struct sockaddr_storage *local, uint8_t out[PROXY_HEADER_MAX]);

#endif
