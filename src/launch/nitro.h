/* The launcher `nitro`: AWS Nitro Enclaves through /dev/nitro_enclaves. docs/nitro.md. */
#ifndef CAPSULE_LAUNCH_NITRO_H
#define CAPSULE_LAUNCH_NITRO_H

#include "launch/launcher.h"

extern const struct launcher_ops nitro_launcher;

#endif
