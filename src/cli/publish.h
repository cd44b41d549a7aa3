/* Published ports: what -p of `run` says, checked against the manifest's ingress. */
#ifndef CAPSULE_CLI_PUBLISH_H
#define CAPSULE_CLI_PUBLISH_H

#include "base/error.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PUBLISH_MAX       256                     /* ports of one run */
#define PUBLISH_TEXT_SIZE (INET6_ADDRSTRLEN + 16) /* "[ADDR]:HOST:CONTAINER" and its NUL */

struct publish {
    char addr[INET6_ADDRSTRLEN]; /* canonical text of the address; "" for all of them */
    uint16_t host;
    uint16_t container;
};

/*
 * Parses [ADDR:]HOST:CONTAINER[/tcp]: ports are decimal, 1 to 65535; ADDR is an IPv4 address or an
 * IPv6 address in brackets. ERR_USAGE tells which part is wrong.
 */
int publish_parse(const char *text, struct publish *out, struct error *err);
/* The canonical form of it, for capsule-shell. Returns `out`. */
const char *publish_format(const struct publish *p, char out[PUBLISH_TEXT_SIZE]);

struct publish_list {
    struct publish items[PUBLISH_MAX];
    size_t count;
};

/* Parses and appends; the same host port on the same (or on every) address twice is ERR_USAGE. */
int publish_add(struct publish_list *list, const char *text, struct error *err);

struct manifest;

/*
 * Compares with the manifest's ingress: with `all`, ports that no -p names are published under
 * their own number; otherwise one warning for each. A container port without ingress is a warning
 * too: nothing in the enclave listens for it.
 */
int publish_match(struct publish_list *list, const struct manifest *m, bool all, struct error *err);

#endif
