/* Time in plain integers. */
#ifndef CAPSULE_BASE_CLOCK_H
#define CAPSULE_BASE_CLOCK_H

#include <stdint.h>

/* Milliseconds of CLOCK_MONOTONIC: for time-outs and intervals. */
int64_t clock_mono_ms(void);
/* Nanoseconds of CLOCK_MONOTONIC: for measuring. */
int64_t clock_mono_ns(void);
/* Nanoseconds since 1970 of CLOCK_REALTIME. */
int64_t clock_real_ns(void);

#endif
