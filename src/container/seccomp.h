/*
 * A seccomp profile for capsule-shell in a container, in the JSON that Docker takes (moby's
 * seccomp.md and the OCI runtime-spec, config-linux.md "Seccomp").
 *
 * Docker's own default refuses AF_VSOCK, by which the shell reaches its enclave, and the API cannot
 * say "the default, and that". This one does what the documentation says of the default - what
 * administers the machine, its modules, mounts, namespaces, keys, tracing and io_uring is EPERM,
 * clone3 and calls that this build does not know are ENOSYS - and lets sockets be of any family but
 * AF_ALG.
 */
#ifndef CAPSULE_CONTAINER_SECCOMP_H
#define CAPSULE_CONTAINER_SECCOMP_H

#include "codec/json.h"

/* Puts the profile where a value goes. */
void container_seccomp_put(struct json_writer *w);

#endif
