/* The sandbox launcher: docs/sandbox.md. */
#ifndef CAPSULE_LAUNCH_SANDBOX_H
#define CAPSULE_LAUNCH_SANDBOX_H

#include "launch/launcher.h"

extern const struct launcher_ops sandbox_launcher;

#endif
