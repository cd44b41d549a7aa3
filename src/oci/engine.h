/*
 * Images of the local Docker or podman engine (container/engine.h): what the reading and writing
 * sides share.
 */
#ifndef CAPSULE_OCI_ENGINE_H
#define CAPSULE_OCI_ENGINE_H

#include "container/engine.h"

/*
 * The first that answers, into *out, which is empty; the caller closes it. 1, or 0 when there is
 * none; -1 when the one that DOCKER_HOST names does not answer.
 */
int engine_find(struct container_engine *out, struct error *err);
/*
 * An image name as engines take it: letters, digits and "._-/:@", no "..", so that it is one part
 * of a URL path. Without a tag an engine would mean every tag, so ":latest" is added. The caller
 * frees *out.
 */
int engine_check_name(const char *name, char **out, struct error *err);
/* 1 when it has the image, 0, or -1. */
int engine_has(const struct container_engine *e, const char *name, struct error *err);

#endif
