/*
 * The local Docker or podman engine (spec/cli-and-build.md section 2): what its reading and writing
 * sides share.
 */
#ifndef CAPSULE_OCI_ENGINE_H
#define CAPSULE_OCI_ENGINE_H

#include "base/error.h"
#include "base/slice.h"

#define ENGINE_API_MAJOR 1

struct engine {
    char *socket;
    unsigned int minor; /* of the API version it speaks */
};
void engine_close(struct engine *e);
#define AUTO_ENGINE CLEANUP(engine_close)

/*
 * The first that answers, into *out, which is empty; the caller closes it. 1, or 0 when there is
 * none; -1 when the one that DOCKER_HOST names does not answer.
 */
int engine_find(struct engine *out, struct error *err);
/*
 * An image name as engines take it: letters, digits and "._-/:@", no "..", so that it is one part
 * of a URL path. Without a tag an engine would mean every tag, so ":latest" is added. The caller
 * frees *out.
 */
int engine_check_name(const char *name, char **out, struct error *err);
/* 1 when it has the image, 0, or -1. */
int engine_has(const struct engine *e, const char *name, struct error *err);
/* The error for an answer that is no good one; its body is {"message": "..."}. Returns -1. */
int engine_refused(const struct engine *e, long status, struct slice body, const char *what,
                   struct error *err);

#endif
