/* The launcher `nitro-cli`: AWS Nitro Enclaves through the program of that name. docs/nitro.md. */
#ifndef CAPSULE_LAUNCH_NITRO_CLI_H
#define CAPSULE_LAUNCH_NITRO_CLI_H

#include "launch/launcher.h"

extern const struct launcher_ops nitro_cli_launcher;

#endif
