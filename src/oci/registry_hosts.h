/*
 * What this machine says about registries: containers-registries.conf(5) for names without a host,
 * and directories of certificates (containers-certs.d(5), and docker's).
 */
#ifndef CAPSULE_OCI_REGISTRY_HOSTS_H
#define CAPSULE_OCI_REGISTRY_HOSTS_H

#include "base/error.h"
#include "base/slice.h"

/*
 * The one registry where names without a host are looked for: `unqualified-search-registries` of
 * $CONTAINERS_REGISTRIES_CONF alone if that is set, else of the first of
 * $XDG_CONFIG_HOME/containers/registries.conf (default below ~/.config) and
 * /etc/containers/registries.conf that has it. None, or several, is an error that says what to
 * write: a name must not mean whatever answers first. The caller frees it; NULL with err.
 */
char *registry_default_host(struct error *err);
/*
 * Takes the list out of the text of registries.conf, which is TOML: only this key, in the top
 * table, is read. Appends hosts to the strv *out. ERR_INVALID when its value is not a list of
 * hosts.
 */
int registries_conf_parse(struct slice text, char ***out, struct error *err);

struct registry_certs {
    struct buf authorities; /* PEM, to be trusted besides the system's */
    char *client_cert;      /* paths; NULL when there is none */
    char *client_key;
};
#define REGISTRY_CERTS_MAX  ((size_t)4 << 20)
#define REGISTRY_CERTS_NONE ((struct registry_certs){.authorities = BUF(REGISTRY_CERTS_MAX)})
void registry_certs_free(struct registry_certs *c);

/*
 * What *.crt, and *.cert with its *.key, hold for "HOST[:PORT]" in the first directory there is of
 * ~/.config/containers/certs.d/, /etc/containers/certs.d/ and /etc/docker/certs.d/. No directory
 * is no error.
 */
int registry_certs_load(const char *host, struct registry_certs *out, struct error *err);
/* Adds a file of PEM certificates. */
int registry_certs_add(struct registry_certs *c, const char *file, struct error *err);

#endif
