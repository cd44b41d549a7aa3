#include "base/queue.h"

void queue_free(struct queue *q)
{
    free(q->ptr);
    q->ptr = NULL;
    q->start = q->len = 0;
}

uint8_t *queue_space(struct queue *q, size_t *len)
{
    size_t tail;

    if (!q->ptr)
        q->ptr = xmalloc(q->cap);
    if (q->len == 0)
        q->start = 0;
    tail = (q->start + q->len) % q->cap;
    *len = tail < q->start || q->len == q->cap ? q->start - tail : q->cap - tail;
    if (q->len == q->cap)
        *len = 0;
    return q->ptr + tail;
}

void queue_commit(struct queue *q, size_t len)
{
    q->len += len;
}

size_t queue_write(struct queue *q, const void *ptr, size_t len)
{
    const uint8_t *from = ptr;
    size_t done = 0;

    while (done < len) {
        size_t room;
        uint8_t *to = queue_space(q, &room);

        if (room == 0)
            break;
        if (room > len - done)
            room = len - done;
        memcpy(to, from + done, room);
        queue_commit(q, room);
        done += room;
    }
    return done;
}

struct slice queue_peek(const struct queue *q)
{
    size_t piece = q->cap - q->start;

    if (q->len == 0)
        return slice_of(NULL, 0);
    return slice_of(q->ptr + q->start, q->len < piece ? q->len : piece);
}

void queue_consume(struct queue *q, size_t len)
{
    if (len > q->len)
        len = q->len;
    q->start = (q->start + len) % q->cap;
    q->len -= len;
}
