/* The list of system calls that a host mount's server may make: seccomp(2) in filter mode. */
#ifndef CAPSULE_HOSTFS_FILTER_H
#define CAPSULE_HOSTFS_FILTER_H

#include "base/error.h"

#include <stdbool.h>

/*
 * For all threads of the process, for ever; none can be started any more. Any other call kills the
 * process. Needs no_new_privs. In a build with sanitizers, which make calls of their own, others
 * are let through.
 */
int filter_install(struct error *err);
/* Whether other calls kill. */
bool filter_kills(void);

#endif
