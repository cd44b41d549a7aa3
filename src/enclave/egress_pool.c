#include "enclave/egress_internal.h"

struct pooled {
    struct egress_pool *pool;
    struct pooled *prev, *next;
    struct stream *up;
    char host[POLICY_NAME_MAX + 1];
    uint16_t port;
};

/* Takes the entry out and gives its stream back. */
static struct stream *unlink_entry(struct pooled *p)
{
    struct stream *up = p->up;

    if (p->prev)
        p->prev->next = p->next;
    else
        p->pool->first = p->next;
    if (p->next)
        p->next->prev = p->prev;
    p->pool->count--;
    free(p);
    return up;
}

/* Bytes nobody asked for, the end, or age: none of these connections is of use any more. */
static void on_anything(void *arg)
{
    stream_free(unlink_entry(arg));
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

void egress_pool_put(struct egress_pool *pool, struct stream *up, const struct policy_target *to)
{
    struct pooled *entry, *oldest = NULL, *last = NULL;
    size_t same = 0;

    for (struct pooled *p = pool->first; p; p = p->next) {
        last = p;
        if (is_for(p, to)) {
            same++;
            oldest = p;
        }
    }
    if (same >= EGRESS_POOL_HOST_MAX)
        stream_free(unlink_entry(oldest));
    else if (pool->count >= EGRESS_POOL_MAX)
        stream_free(unlink_entry(last));
    entry = xcalloc(1, sizeof(*entry));
    entry->pool = pool;
    entry->up = up;
    entry->port = to->port;
    memcpy(entry->host, to->host, sizeof(entry->host));
    entry->next = pool->first;
    if (pool->first)
        pool->first->prev = entry;
    pool->first = entry;
    pool->count++;
    stream_set_ops(up, &idle_ops, entry);
    stream_read(up, true);
    stream_set_timeout(up, EGRESS_POOL_MS);
}

struct stream *egress_pool_get(struct egress_pool *pool, const struct policy_target *to)
{
    for (struct pooled *p = pool->first; p; p = p->next) {
        if (is_for(p, to)) {
            struct stream *up = unlink_entry(p);

            stream_set_timeout(up, 0);
            return up;
        }
    }
    return NULL;
}

void egress_pool_clear(struct egress_pool *pool)
{
    while (pool->first)
        stream_free(unlink_entry(pool->first));
}
