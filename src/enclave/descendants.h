/* What this process has started, and what that has started. */
#ifndef CAPSULE_ENCLAVE_DESCENDANTS_H
#define CAPSULE_ENCLAVE_DESCENDANTS_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Sends a signal to all of them. `everybody`: PID 1 is ours, so every process but PID 1 and this
 * one is meant. Otherwise the tree below this process, which orphans belong to where we are their
 * reaper (PR_SET_CHILD_SUBREAPER), and before it the process group `group` (0: none) as a whole.
 */
void descendants_signal(bool everybody, pid_t group, int sig);

#endif
