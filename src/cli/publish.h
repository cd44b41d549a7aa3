/* Published ports: what -p of `run` says. The shell holds it against the manifest's ingress. */
#ifndef CAPSULE_CLI_PUBLISH_H
#define CAPSULE_CLI_PUBLISH_H

#include "base/error.h"
#include "host/publish.h"

#include <stdbool.h>

struct publish_list {
    struct publish items[PUBLISH_MAX];
    size_t count;
};

/*
 * Appends [ADDR:]HOST:CONTAINER[/tcp], as publish_parse() reads it, both ports from 1. The same
 * host port on the same (or on every) address twice is ERR_USAGE, as is anything malformed.
 */
int publish_add(struct publish_list *list, const char *text, struct error *err);

#endif
