/*
 * The process that serves one host mount. capsule-shell runs itself anew for it, so that it starts
 * with nothing of the shell's memory, and hands it accepted connections over a socket.
 */
#ifndef CAPSULE_HOSTFS_PROCESS_H
#define CAPSULE_HOSTFS_PROCESS_H

#include "base/log.h"

/* The first argument of a program that is to be such a process. */
#define HOSTFS_PROCESS_WORD "serve-host-mount"

/*
 * Runs it: arguments are HOSTFS_PROCESS_WORD, the mount's name, "ro" or "rw", the log level and the
 * log format as numbers, and the numbers of two descriptors, the directory's and the control
 * socket's (host/mounts.h). Returns the exit status of
 * a start that failed; once it serves it ends the process itself, with 0 when enclave or shell
 * ended the mount.
 */
int hostfs_process(int argc, char **argv);

#endif
