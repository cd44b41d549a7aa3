/* The QEMU launcher: docs/qemu.md. */
#ifndef CAPSULE_LAUNCH_QEMU_H
#define CAPSULE_LAUNCH_QEMU_H

#include "launch/launcher.h"

extern const struct launcher_ops qemu_launcher;

#endif
