/* Says whether a line about some key (a host name, say) was written within the last minute. */
#ifndef CAPSULE_BASE_LOG_ONCE_H
#define CAPSULE_BASE_LOG_ONCE_H

#include "base/log.h"

#include <stddef.h>

#define LOG_ONCE_SLOTS 256

/*
 * Zero-initialise. Remembers LOG_ONCE_SLOTS keys at a time by their hash; a peer that goes through
 * more of them is held to 60 lines a minute in all.
 */
struct log_once {
    struct {
        uint64_t hash;
        int64_t until_ms;
    } slots[LOG_ONCE_SLOTS];
    struct log_rate rate;
};

/* True when the line may be written; *suppressed as in log_rate_allow(). */
bool log_once_allow(struct log_once *once, const char *key, uint64_t *suppressed);

#endif
