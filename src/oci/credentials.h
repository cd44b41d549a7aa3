/*
 * Who we are at a registry: what `docker login`, `podman login` and credential helpers have left
 * (docker's config.json, containers-auth.json(5), docker-credential-helpers' "get").
 */
#ifndef CAPSULE_OCI_CREDENTIALS_H
#define CAPSULE_OCI_CREDENTIALS_H

#include "base/error.h"
#include "base/slice.h"

#define CREDENTIALS_MAX ((size_t)64 << 10) /* of user and password together */

struct credentials {
    bool found;
    struct buf pair; /* "USER:PASSWORD", secret */
};
#define CREDENTIALS_NONE ((struct credentials){.pair = BUF_SECRET(CREDENTIALS_MAX)})
static inline void credentials_free(struct credentials *c)
{
    buf_free(&c->pair);
    c->found = false;
}
#define AUTO_CREDENTIALS CLEANUP(credentials_free)

/*
 * Looks in $REGISTRY_AUTH_FILE alone if that is set, else in
 * $XDG_RUNTIME_DIR/containers/auth.json, $XDG_CONFIG_HOME/containers/auth.json and
 * $DOCKER_CONFIG/config.json (by default below ~/.config and ~/.docker). The first that knows
 * `host`, or the most of "host/name", answers. None is no error: `found` is false. A file or helper
 * that cannot be used is one.
 */
int credentials_find(const char *host, const char *name, struct credentials *out,
                     struct error *err);

#endif
