/* What an engine has under one label: containers and images, of any state. */
#ifndef CAPSULE_CONTAINER_LABELLED_H
#define CAPSULE_CONTAINER_LABELLED_H

#include "container/engine.h"

#include <jansson.h>

/*
 * What the engine lists under `path`, "/containers/json" or "/images/json", with `label`, KEY or
 * KEY=VALUE without characters that JSON would escape: an array, which the caller drops, or NULL.
 */
json_t *container_rows(const struct container_engine *e, const char *path, const char *label,
                       struct error *err);
/*
 * Removes all containers and images whose label `key` is `value`; containers are killed. Images go
 * from the last layer to the first. *containers and *images grow by how many went. ERR_EXISTS when
 * some cannot be removed.
 */
int container_remove_labelled(const struct container_engine *e, const char *key, const char *value,
                              size_t *containers, size_t *images, struct error *err);

#endif
