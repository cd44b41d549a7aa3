#include "eif/measure.h"

#include "crypto/hash.h"

#include <pthread.h>
#include <signal.h>

enum digest {
    DIGEST_IMAGE,
    DIGEST_BOOT,
    DIGEST_APP,
    DIGEST_COUNT
};

struct block {
    size_t len;
    enum digest second; /* beside DIGEST_IMAGE */
};

struct lane {
    struct measurer *m;
    pthread_t thread;
    uint64_t done; /* blocks hashed */
};

struct measurer {
    struct hash *digests[DIGEST_COUNT];
    uint64_t hashed; /* bytes */
    bool threaded;
    bool no_threads; /* they could not be started; never tried again */

    pthread_mutex_t lock;
    pthread_cond_t filled;
    pthread_cond_t drained;
    struct lane lanes[2]; /* [0] hashes DIGEST_IMAGE, [1] the other two */
    uint64_t committed;   /* blocks handed over; block i is in slot i % MEASURE_BLOCKS */
    bool closing;
    struct block blocks[MEASURE_BLOCKS];
    uint8_t *memory;
};

struct measurer *measurer_new(void)
{
    struct measurer *m = xcalloc(1, sizeof(*m));

    m->memory = xmalloc((size_t)MEASURE_BLOCKS * MEASURE_BLOCK);
    for (size_t i = 0; i < DIGEST_COUNT; i++)
        m->digests[i] = hash_new(HASH_SHA384);
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->filled, NULL);
    pthread_cond_init(&m->drained, NULL);
    return m;
}

static uint8_t *slot(const struct measurer *m, uint64_t index)
{
    return m->memory + index % MEASURE_BLOCKS * MEASURE_BLOCK;
}

static void hash_block(struct measurer *m, size_t lane, uint64_t index)
{
    const struct block *b = &m->blocks[index % MEASURE_BLOCKS];

    hash_update(m->digests[lane == 0 ? DIGEST_IMAGE : b->second], slice_of(slot(m, index), b->len));
}

static void *run_lane(void *arg)
{
    struct lane *lane = arg;
    struct measurer *m = lane->m;

    pthread_mutex_lock(&m->lock);
    for (;;) {
        while (lane->done == m->committed && !m->closing)
            pthread_cond_wait(&m->filled, &m->lock);
        if (lane->done == m->committed)
            break;
        pthread_mutex_unlock(&m->lock);
        hash_block(m, (size_t)(lane - m->lanes), lane->done);
        pthread_mutex_lock(&m->lock);
        lane->done++;
        pthread_cond_signal(&m->drained);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

static void stop_threads(struct measurer *m, size_t count)
{
    pthread_mutex_lock(&m->lock);
    m->closing = true;
    pthread_cond_broadcast(&m->filled);
    pthread_mutex_unlock(&m->lock);
    for (size_t i = 0; i < count; i++)
        pthread_join(m->lanes[i].thread, NULL);
    m->closing = false;
}

/* The threads take no signals: those belong to whoever owns the process. */
static void start_threads(struct measurer *m)
{
    sigset_t all, before;
    size_t started = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; started < ARRAY_LEN(m->lanes); started++) {
        struct lane *lane = &m->lanes[started];

        lane->m = m;
        lane->done = m->committed;
        if (pthread_create(&lane->thread, NULL, run_lane, lane) != 0)
            break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    m->threaded = started == ARRAY_LEN(m->lanes);
    m->no_threads = !m->threaded;
    if (!m->threaded)
        stop_threads(m, started);
}

void measurer_free(struct measurer *m)
{
    if (!m)
        return;
    if (m->threaded)
        stop_threads(m, ARRAY_LEN(m->lanes));
    for (size_t i = 0; i < DIGEST_COUNT; i++)
        hash_free(m->digests[i]);
    pthread_cond_destroy(&m->filled);
    pthread_cond_destroy(&m->drained);
    pthread_mutex_destroy(&m->lock);
    free(m->memory);
    free(m);
}

static bool ring_is_full(const struct measurer *m)
{
    for (size_t i = 0; i < ARRAY_LEN(m->lanes); i++)
        if (m->committed - m->lanes[i].done == MEASURE_BLOCKS)
            return true;
    return false;
}

uint8_t *measurer_space(struct measurer *m)
{
    if (m->threaded) {
        pthread_mutex_lock(&m->lock);
        while (ring_is_full(m))
            pthread_cond_wait(&m->drained, &m->lock);
        pthread_mutex_unlock(&m->lock);
    }
    return slot(m, m->committed);
}

void measurer_commit(struct measurer *m, size_t len, enum eif_section_type type,
                     unsigned int ramdisk)
{
    struct block *b = &m->blocks[m->committed % MEASURE_BLOCKS];

    if (type != EIF_KERNEL && type != EIF_CMDLINE && type != EIF_RAMDISK)
        return;
    b->len = len;
    b->second = type == EIF_RAMDISK && ramdisk > 0 ? DIGEST_APP : DIGEST_BOOT;
    if (!m->threaded && !m->no_threads && m->hashed >= MEASURE_INLINE)
        start_threads(m);
    m->hashed += len;
    if (!m->threaded) {
        hash_block(m, 0, m->committed);
        hash_block(m, 1, m->committed);
        return;
    }
    pthread_mutex_lock(&m->lock);
    m->committed++;
    pthread_cond_broadcast(&m->filled);
    pthread_mutex_unlock(&m->lock);
}

void measurer_finish(struct measurer *m, struct eif_measurements *out)
{
    uint8_t *const pcrs[DIGEST_COUNT] = {out->pcr0, out->pcr1, out->pcr2};
    uint8_t digest[EIF_PCR_LEN];

    if (m->threaded)
        stop_threads(m, ARRAY_LEN(m->lanes));
    m->threaded = false;
    for (size_t i = 0; i < DIGEST_COUNT; i++) {
        hash_final(m->digests[i], digest);
        eif_extend(digest, pcrs[i]);
    }
}

void eif_extend(const uint8_t digest[EIF_PCR_LEN], uint8_t pcr[EIF_PCR_LEN])
{
    uint8_t input[2 * EIF_PCR_LEN] = {0};

    memcpy(input + EIF_PCR_LEN, digest, EIF_PCR_LEN);
    hash_once(HASH_SHA384, slice_of(input, sizeof(input)), pcr);
}
