#include "api/loop_pool.h"

#include <stdlib.h>

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    const struct loop_pool *lp = arg;

    (void)fd;
    (void)what;
    pool_collect(lp->pool);
}

int loop_pool_start(struct loop_pool *lp, struct event_base *base, size_t threads, size_t queue_max,
                    struct error *err)
{
    if (pool_new(threads, queue_max, &lp->pool, err) < 0)
        return -1;
    lp->ready = event_new(base, pool_fd(lp->pool), EV_READ | EV_PERSIST, on_ready, lp);
    if (!lp->ready)
        abort(); /* out of memory */
    event_add(lp->ready, NULL);
    return 0;
}

void loop_pool_stop(struct loop_pool *lp)
{
    if (lp->ready)
        event_free(lp->ready);
    pool_free(lp->pool);
    *lp = (struct loop_pool){0};
}
