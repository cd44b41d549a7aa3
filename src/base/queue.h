/*
 * A bounded byte queue: a ring that takes what fits and says how much that was. The reader of one
 * side is slowed down by the other instead of memory being filled.
 */
#ifndef CAPSULE_BASE_QUEUE_H
#define CAPSULE_BASE_QUEUE_H

#include "base/slice.h"

/* Zero-initialise with QUEUE(capacity); the memory is taken at the first write. */
struct queue {
    uint8_t *ptr;
    size_t cap;
    size_t start; /* index of the oldest byte */
    size_t len;
};

#define QUEUE(capacity) ((struct queue){.cap = (capacity)})

void queue_free(struct queue *q);
/* Copies in as much as fits and returns how much that was; 0 means "again later". */
size_t queue_write(struct queue *q, const void *ptr, size_t len);
/* The oldest bytes that lie in one piece; empty when the queue is. Borrowed until the next call. */
struct slice queue_peek(const struct queue *q);
/* The free space that lies in one piece; the caller fills up to *len and calls queue_commit(). */
uint8_t *queue_space(struct queue *q, size_t *len);
void queue_commit(struct queue *q, size_t len);
/* Drops the oldest `len` bytes (at most q->len). */
void queue_consume(struct queue *q, size_t len);

static inline size_t queue_room(const struct queue *q)
{
    return q->cap - q->len;
}

#endif
