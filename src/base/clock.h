/* Time in plain integers. */
#ifndef CAPSULE_BASE_CLOCK_H
#define CAPSULE_BASE_CLOCK_H

#include <stdint.h>
#include <sys/time.h>

/* Milliseconds of CLOCK_MONOTONIC: for time-outs and intervals. */
int64_t clock_mono_ms(void);
/* Milliseconds as timers take them; negative ones are 0. */
struct timeval clock_timeval(int64_t ms);
/* What is left until a time of clock_mono_ms(), likewise. */
struct timeval clock_left(int64_t deadline_ms);
/* Nanoseconds of CLOCK_MONOTONIC: for measuring. */
int64_t clock_mono_ns(void);
/* Nanoseconds since 1970 of CLOCK_REALTIME. */
int64_t clock_real_ns(void);

#endif
