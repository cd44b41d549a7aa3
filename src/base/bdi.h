/*
 * What Linux keeps for each mounted file system's traffic with its disk or server: its backing
 * device (Documentation/ABI/testing/sysfs-class-bdi of Linux).
 */
#ifndef CAPSULE_BASE_BDI_H
#define CAPSULE_BASE_BDI_H

#include <sys/types.h>

/*
 * Sets a limit, by the name of its file ("read_ahead_kb", "max_ratio"), of the file system with the
 * device number of st_dev. Best effort, because only speed depends on it: where /sys is missing,
 * read-only or not ours, a debug line says so.
 */
void bdi_set(dev_t fs, const char *name, unsigned int value);

#endif
