/* A pool of threads whose results the loop collects by itself. */
#ifndef CAPSULE_API_LOOP_POOL_H
#define CAPSULE_API_LOOP_POOL_H

#include "base/pool.h"

#include <event2/event.h>

/* Zero-initialise. */
struct loop_pool {
    struct pool *pool; /* NULL: not started, or stopped */
    struct event *ready;
};

/* As pool_new(). `lp` must stay where it is. */
int loop_pool_start(struct loop_pool *lp, struct event_base *base, size_t threads, size_t queue_max,
                    struct error *err);
/* As pool_free(). Safe on zeros. */
void loop_pool_stop(struct loop_pool *lp);

#endif
