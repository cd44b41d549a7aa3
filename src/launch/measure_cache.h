/* The measurements of an EIF that was measured before, without reading it again. */
#ifndef CAPSULE_LAUNCH_MEASURE_CACHE_H
#define CAPSULE_LAUNCH_MEASURE_CACHE_H

#include "eif/eif.h"

/*
 * As eif_measure_sound(), but remembers, in the sandbox's cache directory, what file had which
 * measurements. For the soft NSM of launchers without hardware: whoever can write to the user's
 * cache could as well replace the development root. A cache that cannot be used is not an error.
 */
int measure_eif_cached(int fd, const char *name, struct eif_measurements *out, struct error *err);

#endif
