#include "api/reservoir.h"

#include "api/loop_pool.h"
#include "base/log.h"
#include "base/mem.h"
#include "nsm/nsm.h"

#include <string.h>

STAILQ_HEAD(waiting, reservoir_waiter);

struct reservoir {
    struct nsm *nsm;
    /* One thread of its own, so that attestations in their pool cannot keep it waiting. */
    struct loop_pool pool;
    uint8_t bytes[RESERVOIR_LEN];
    size_t have;
    struct waiting waiting;
    size_t waiting_count;
    struct log_rate complaints;
    bool ending;

    /* One draw at a time; `incoming` and below are the thread's while it runs. */
    bool drawing;
    struct pool_job job;
    uint8_t incoming[RESERVOIR_LEN];
    size_t wanted;
    bool failed;
    struct error err;
};

static void draw(struct pool_job *job)
{
    struct reservoir *r = CONTAINER_OF(job, struct reservoir, job);

    r->failed = nsm_random(r->nsm, r->incoming, r->wanted, &r->err) < 0;
}

static void draw_if_low(struct reservoir *r)
{
    bool low = r->have < RESERVOIR_LEN / 2 || !STAILQ_EMPTY(&r->waiting);

    if (!low || r->drawing || r->ending)
        return;
    r->wanted = RESERVOIR_LEN - r->have;
    r->drawing = pool_submit(r->pool.pool, &r->job) == 0;
}

static struct reservoir_waiter *first_out(struct waiting *q)
{
    struct reservoir_waiter *w = STAILQ_FIRST(q);

    STAILQ_REMOVE_HEAD(q, link);
    return w;
}

/* Those who come while this goes on are not meant. */
static void end_waiting(struct reservoir *r, enum reservoir_result result, const struct error *err)
{
    struct waiting now = STAILQ_HEAD_INITIALIZER(now);

    STAILQ_CONCAT(&now, &r->waiting);
    r->waiting_count = 0;
    while (!STAILQ_EMPTY(&now)) {
        struct reservoir_waiter *w = first_out(&now);

        w->ready(w, result, err);
    }
}

static void serve(struct reservoir *r)
{
    while (!STAILQ_EMPTY(&r->waiting) && STAILQ_FIRST(&r->waiting)->len <= r->have) {
        struct reservoir_waiter *w = first_out(&r->waiting);

        r->waiting_count--;
        w->ready(w, RESERVOIR_READY, NULL);
    }
}

static void drawn(struct pool_job *job)
{
    struct reservoir *r = CONTAINER_OF(job, struct reservoir, job);
    uint64_t suppressed;

    r->drawing = false;
    if (r->ending || job->dropped)
        return;
    if (r->failed) {
        if (log_rate_allow(&r->complaints, &suppressed))
            log_warn("api", "no random bytes from the NSM", kv_str("error", r->err.msg),
                     kv_uint("suppressed", suppressed));
        end_waiting(r, RESERVOIR_FAILED, &r->err);
    } else {
        /* Some may have been taken meanwhile, never added. */
        memcpy(r->bytes + r->have, r->incoming, r->wanted);
        mem_wipe(r->incoming, r->wanted);
        r->have += r->wanted;
        serve(r);
    }
    if (!STAILQ_EMPTY(&r->waiting))
        draw_if_low(r);
}

int reservoir_new(struct event_base *base, struct nsm *nsm, struct reservoir **out,
                  struct error *err)
{
    struct reservoir *r = xcalloc(1, sizeof(*r));

    r->nsm = nsm;
    r->complaints.burst = 5;
    r->job = (struct pool_job){.run = draw, .done = drawn};
    STAILQ_INIT(&r->waiting);
    if (loop_pool_start(&r->pool, base, 1, 1, err) < 0) {
        free(r);
        return error_wrap(err, "the reservoir of random bytes");
    }
    draw_if_low(r);
    *out = r;
    return 0;
}

void reservoir_free(struct reservoir *r)
{
    if (!r)
        return;
    r->ending = true;
    loop_pool_stop(&r->pool);
    end_waiting(r, RESERVOIR_ENDED, NULL);
    mem_wipe(r, sizeof(*r));
    free(r);
}

int reservoir_want(struct reservoir *r, struct reservoir_waiter *w)
{
    if (STAILQ_EMPTY(&r->waiting) && w->len <= r->have) {
        w->ready(w, RESERVOIR_READY, NULL);
        return 0;
    }
    if (r->ending || r->waiting_count == RESERVOIR_WAITING_MAX)
        return -1;
    STAILQ_INSERT_TAIL(&r->waiting, w, link);
    r->waiting_count++;
    draw_if_low(r);
    return 0;
}

void reservoir_take(struct reservoir *r, uint8_t *out, size_t len)
{
    if (len > r->have)
        abort(); /* not what was promised */
    r->have -= len;
    memcpy(out, r->bytes + r->have, len);
    mem_wipe(r->bytes + r->have, len);
    draw_if_low(r);
}
