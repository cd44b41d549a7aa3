/* What `-p [ADDR:]HOST:CONTAINER` says: which host address leads to which enclave port. */
#ifndef CAPSULE_HOST_PUBLISH_H
#define CAPSULE_HOST_PUBLISH_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PUBLISH_MAX       256
#define PUBLISH_TEXT_SIZE 80 /* "[ADDR]:HOST:CONTAINER" and its NUL */

struct publish {
    char address[48];   /* numeric IPv4 or IPv6 without brackets; "" is every address */
    uint16_t host_port; /* 0 takes any free port */
    uint16_t enclave_port;
    bool proxy_header; /* not part of the text: the manifest's ingress says it */
};

/*
 * Reads "PORT", "HOST:CONTAINER", "ADDR:HOST:CONTAINER" or "[V6]:HOST:CONTAINER". The error is
 * ERR_USAGE and quotes the text.
 */
int publish_parse(const char *text, struct publish *out, struct error *err);

/* The canonical form: what publish_parse() reads. Returns `out`. */
const char *publish_format(const struct publish *p, char out[PUBLISH_TEXT_SIZE]);

/* True when both want the same host port on the same address, or one of them on every address. */
bool publish_clash(const struct publish *a, const struct publish *b);

#endif
