/*
 * A small pool of threads for what must block (the NSM, files, outbound calls). Jobs wait in a
 * bounded queue; results come back to the loop's thread through a descriptor.
 */
#ifndef CAPSULE_BASE_POOL_H
#define CAPSULE_BASE_POOL_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

struct pool;

/* Embedded in the caller's own record, which must live until `done` has run. */
struct pool_job {
    void (*run)(struct pool_job *job);  /* in a thread of the pool */
    void (*done)(struct pool_job *job); /* in the loop's thread */
    bool dropped;                       /* for `done`: the pool ended before `run` was called */
    struct pool_job *next;              /* the pool's */
};

/* `queue_max` jobs may wait while all `threads` are busy. Signals stay with the other threads. */
int pool_new(size_t threads, size_t queue_max, struct pool **out, struct error *err);
/*
 * Hands a job over; `run` and `done` must be set. Returns 0, or -1 when the queue is full (nothing
 * has happened to the job then). From the loop's thread only, like all that follow.
 */
int pool_submit(struct pool *p, struct pool_job *job);
/* Readable when pool_collect() has something to do. Borrowed. */
int pool_fd(const struct pool *p);
/* Calls `done` of the jobs that have run. */
void pool_collect(struct pool *p);
/*
 * Waits for the jobs that run, calls `done` of every job (with `dropped` for those never begun) and
 * frees the pool. `done` must not submit any more. NULL is fine.
 */
void pool_free(struct pool *p);

#endif
