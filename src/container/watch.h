/*
 * A started container until it ends: its log to our own streams, our signals to it, and how it
 * ended (spec/cli-and-build.md section 5.2).
 */
#ifndef CAPSULE_CONTAINER_WATCH_H
#define CAPSULE_CONTAINER_WATCH_H

#include "container/engine.h"

#include <stdint.h>

#define CONTAINER_STOP_EXTRA_MS 15000 /* beyond the app's grace */
#define CONTAINER_FORCE_MS      5000  /* after a second signal */
#define CONTAINER_LOG_IDLE_MS   5000  /* for the log to end once the container has */

struct container_watch {
    const struct container_engine *engine;
    const char *id;
    int signals; /* a signalfd; what comes is passed on */
    uint32_t grace_ms;
};

struct container_end {
    bool ended; /* `status` is known */
    int status;
    int signal; /* the first INT, TERM or HUP of ours; 0 when there was none */
};

/*
 * Returns when the container has ended and its log has been written out. A first signal is passed
 * on as SIGTERM, with grace_ms + CONTAINER_STOP_EXTRA_MS to end; a second leaves
 * CONTAINER_FORCE_MS, a third nothing; then it is killed. -1 when the engine fails; *end says what
 * is known all the same. A reader of our output that is gone is no error.
 */
int container_watch(const struct container_watch *w, struct container_end *end, struct error *err);

#endif
