#include "base/log_once.h"

#include "base/clock.h"

/* FNV-1a: a collision only costs a log line. */
static uint64_t hash_of(const char *key)
{
    uint64_t h = 0xcbf29ce484222325;

    for (; *key; key++)
        h = (h ^ (uint8_t)*key) * 0x100000001b3;
    return h ? h : 1;
}

bool log_once_allow(struct log_once *once, const char *key, uint64_t *suppressed)
{
    uint64_t hash = hash_of(key);
    size_t slot = hash % LOG_ONCE_SLOTS;
    int64_t now = clock_mono_ms();

    *suppressed = 0;
    if (once->slots[slot].hash == hash && now < once->slots[slot].until_ms)
        return false;
    once->rate.burst = 60;
    if (!log_rate_allow(&once->rate, suppressed))
        return false;
    once->slots[slot].hash = hash;
    once->slots[slot].until_ms = now + 60000;
    return true;
}
