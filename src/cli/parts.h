/* Where the files that belong to capsule-cli are: its sister programs and the enclave kernel. */
#ifndef CAPSULE_CLI_PARTS_H
#define CAPSULE_CLI_PARTS_H

#include "base/error.h"
#include "base/mem.h"

#define PART_RUNTIME "capsule-runtime"
#define PART_INIT    "capsule-init"
#define PART_SHELL   "capsule-shell"
#define PART_KERNEL  "bzImage"

/*
 * Path of a part: beside the running capsule-cli (a build directory), else in ../lib/capsule from
 * there (an installation). The caller frees it. NULL with err, naming both places and what to do.
 */
char *parts_find(const char *part, struct error *err) MUST_USE;

#endif
