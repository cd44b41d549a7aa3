#include "enclave/egress_internal.h"

struct pooled {
    struct egress_pool *pool;
    size_t slot;
    uint64_t since; /* of the pool's counter: smaller is older */
    struct stream *up;
    char host[POLICY_NAME_MAX + 1];
    uint16_t port;
};

/* Empties the slot and gives its stream back. */
static struct stream *take_out(struct egress_pool *pool, size_t slot)
{
    struct stream *up = pool->slots[slot]->up;

    free(pool->slots[slot]);
    pool->slots[slot] = NULL;
    return up;
}

/* Bytes nobody asked for, the end, or age: none of these connections is of use any more. */
static void on_anything(void *arg)
{
    struct pooled *p = arg;

    stream_free(take_out(p->pool, p->slot));
}

static void on_ended(void *arg, int sys)
{
    (void)sys;
    on_anything(arg);
}

static const struct stream_ops idle_ops = {
    .readable = on_anything, .drained = on_anything, .ended = on_ended, .timeout = on_anything};

static bool is_for(const struct pooled *p, const struct policy_target *to)
{
    return p->port == to->port && strcmp(p->host, to->host) == 0;
}

/* An empty slot; when the origin or the pool has its share, that of the oldest connection. */
static size_t make_room(struct egress_pool *pool, const struct policy_target *to)
{
    size_t empty = EGRESS_POOL_MAX, oldest = EGRESS_POOL_MAX, same = 0;
    size_t oldest_same = EGRESS_POOL_MAX, slot;

    for (size_t i = 0; i < EGRESS_POOL_MAX; i++) {
        const struct pooled *p = pool->slots[i];

        if (!p) {
            empty = i;
            continue;
        }
        if (oldest == EGRESS_POOL_MAX || p->since < pool->slots[oldest]->since)
            oldest = i;
        if (!is_for(p, to))
            continue;
        same++;
        if (oldest_same == EGRESS_POOL_MAX || p->since < pool->slots[oldest_same]->since)
            oldest_same = i;
    }
    if (same < EGRESS_POOL_HOST_MAX && empty < EGRESS_POOL_MAX)
        return empty;
    slot = same < EGRESS_POOL_HOST_MAX ? oldest : oldest_same;
    stream_free(take_out(pool, slot));
    return slot;
}

void egress_pool_put(struct egress_pool *pool, struct stream *up, const struct policy_target *to)
{
    struct pooled *entry = xcalloc(1, sizeof(*entry));

    entry->pool = pool;
    entry->slot = make_room(pool, to);
    entry->since = pool->counter++;
    entry->up = up;
    entry->port = to->port;
    memcpy(entry->host, to->host, sizeof(entry->host));
    pool->slots[entry->slot] = entry;
    stream_set_ops(up, &idle_ops, entry);
    stream_read(up, true);
    stream_set_timeout(up, EGRESS_POOL_MS);
}

struct stream *egress_pool_get(struct egress_pool *pool, const struct policy_target *to)
{
    size_t best = EGRESS_POOL_MAX;
    struct stream *up;

    /* The freshest one: the most likely to live. */
    for (size_t i = 0; i < EGRESS_POOL_MAX; i++)
        if (pool->slots[i] && is_for(pool->slots[i], to) &&
            (best == EGRESS_POOL_MAX || pool->slots[i]->since > pool->slots[best]->since))
            best = i;
    if (best == EGRESS_POOL_MAX)
        return NULL;
    up = take_out(pool, best);
    stream_set_timeout(up, 0);
    return up;
}

void egress_pool_clear(struct egress_pool *pool)
{
    for (size_t i = 0; i < EGRESS_POOL_MAX; i++)
        if (pool->slots[i])
            stream_free(take_out(pool, i));
}
