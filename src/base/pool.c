#include "base/pool.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

struct jobs {
    struct pool_job *first, **last;
    size_t count;
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct jobs waiting, finished;
    size_t queue_max, idle;
    bool closing;
    int fd;
    size_t thread_count;
    pthread_t threads[];
};

static void jobs_init(struct jobs *q)
{
    *q = (struct jobs){.last = &q->first};
}

static void push(struct jobs *q, struct pool_job *job)
{
    job->next = NULL;
    *q->last = job;
    q->last = &job->next;
    q->count++;
}

static struct pool_job *pop(struct jobs *q)
{
    struct pool_job *job = q->first;

    if (!job)
        return NULL;
    q->first = job->next;
    if (!q->first)
        q->last = &q->first;
    q->count--;
    return job;
}

static void announce(struct pool *p)
{
    /* The counter cannot overflow: the loop resets it, and one is enough to wake it. */
    (void)eventfd_write(p->fd, 1);
}

static void *work(void *arg)
{
    struct pool *p = arg;
    struct pool_job *job;

    pthread_mutex_lock(&p->lock);
    while (!p->closing) {
        job = pop(&p->waiting);
        if (!job) {
            p->idle++;
            pthread_cond_wait(&p->work, &p->lock);
            p->idle--;
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        job->run(job);
        pthread_mutex_lock(&p->lock);
        push(&p->finished, job);
        if (p->finished.count == 1)
            announce(p);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static int start_threads(struct pool *p, size_t threads)
{
    sigset_t all, old;
    int rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (rc == 0 && p->thread_count < threads) {
        rc = pthread_create(&p->threads[p->thread_count], NULL, work, p);
        if (rc == 0)
            p->thread_count++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

int pool_new(size_t threads, size_t queue_max, struct pool **out, struct error *err)
{
    struct pool *p = xcalloc(1, sizeof(*p) + threads * sizeof(p->threads[0]));
    int rc;

    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    jobs_init(&p->waiting);
    jobs_init(&p->finished);
    p->queue_max = queue_max;
    p->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = p->fd < 0 ? errno : start_threads(p, threads);
    if (rc != 0) {
        pool_free(p);
        return error_sys(err, rc, "starting %zu worker threads", threads);
    }
    *out = p;
    return 0;
}

int pool_submit(struct pool *p, struct pool_job *job)
{
    int rc = -1;

    job->dropped = false;
    pthread_mutex_lock(&p->lock);
    /* What an idle thread is about to take does not wait. */
    if (!p->closing && p->waiting.count < p->queue_max + p->idle) {
        push(&p->waiting, job);
        pthread_cond_signal(&p->work);
        rc = 0;
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

int pool_fd(const struct pool *p)
{
    return p->fd;
}

static void deliver(struct jobs *q)
{
    struct pool_job *job;

    while ((job = pop(q)))
        job->done(job);
}

/* Moves the list; `from` is empty afterwards. */
static void take_all(struct jobs *from, struct jobs *to)
{
    jobs_init(to);
    if (from->first) {
        *to = *from;
        jobs_init(from);
    }
}

void pool_collect(struct pool *p)
{
    struct jobs ready;
    eventfd_t count;

    (void)eventfd_read(p->fd, &count);
    pthread_mutex_lock(&p->lock);
    take_all(&p->finished, &ready);
    pthread_mutex_unlock(&p->lock);
    deliver(&ready);
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (size_t i = 0; i < p->thread_count; i++)
        pthread_join(p->threads[i], NULL);
    deliver(&p->finished);
    for (struct pool_job *job = p->waiting.first; job; job = job->next)
        job->dropped = true;
    deliver(&p->waiting);
    fd_close(&p->fd);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
