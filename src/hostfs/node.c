#include "hostfs/node.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>

#define CHUNK       1024u /* entries never move, so that requests can point to them */
#define BUCKETS_MIN 1024u
#define NONE        UINT32_MAX

struct entry {
    struct node node;
    uint64_t lookups; /* that the enclave's kernel has not given back; 0: free, or going */
    uint32_t pins;    /* requests at work on it */
    uint32_t index;
    uint32_t generation; /* counts the uses of this entry */
    uint32_t next;       /* in its bucket, or in the free list */
};

struct node_table {
    pthread_mutex_t lock;
    struct entry **chunks;
    uint32_t used; /* entries that were ever in use; the free list holds some of them */
    uint32_t live;
    uint32_t max;
    uint32_t free; /* first of the list */
    uint32_t *buckets;
    uint32_t bucket_count; /* a power of two */
    bool full_said;
};

static struct entry *at(const struct node_table *t, uint32_t index)
{
    return &t->chunks[index / CHUNK][index % CHUNK];
}

static uint32_t *bucket(const struct node_table *t, dev_t dev, ino_t ino)
{
    uint64_t h = ((uint64_t)ino ^ (uint64_t)dev << 40) * UINT64_C(0x9e3779b97f4a7c15);

    return &t->buckets[(h >> 32) & (t->bucket_count - 1)];
}

static void chain(struct node_table *t, struct entry *e)
{
    uint32_t *head = bucket(t, e->node.dev, e->node.ino);

    e->next = *head;
    *head = e->index;
}

static void unchain(struct node_table *t, const struct entry *e)
{
    uint32_t *link = bucket(t, e->node.dev, e->node.ino);

    while (*link != e->index)
        link = &at(t, *link)->next;
    *link = e->next;
}

static void make_buckets(struct node_table *t, uint32_t count)
{
    free(t->buckets);
    t->buckets = xmalloc(count * sizeof(*t->buckets));
    t->bucket_count = count;
    for (uint32_t i = 0; i < count; i++)
        t->buckets[i] = NONE;
    for (uint32_t i = 0; i < t->used; i++)
        if (at(t, i)->node.fd >= 0)
            chain(t, at(t, i));
}

/* An entry that nobody uses, or NULL when the table is full. */
static struct entry *take_entry(struct node_table *t)
{
    struct entry *e;

    if (t->live >= t->max)
        return NULL;
    if (t->free != NONE) {
        e = at(t, t->free);
        t->free = e->next;
    } else {
        if (t->used % CHUNK == 0)
            t->chunks[t->used / CHUNK] = xcalloc(CHUNK, sizeof(struct entry));
        e = at(t, t->used);
        e->index = t->used++;
    }
    t->live++;
    e->generation++;
    return e;
}

/* The entry is out of use; its descriptor is handed back to be closed without the lock. */
static int give_entry(struct node_table *t, struct entry *e)
{
    int fd = e->node.fd;

    unchain(t, e);
    e->node.fd = -1;
    e->next = t->free;
    t->free = e->index;
    t->live--;
    return fd;
}

static struct entry *fill(struct node_table *t, int fd, const struct stat *st)
{
    struct entry *e = take_entry(t);

    if (!e)
        return NULL;
    e->node =
        (struct node){.fd = fd, .type = st->st_mode & S_IFMT, .dev = st->st_dev, .ino = st->st_ino};
    e->lookups = 1;
    chain(t, e);
    if (t->live > t->bucket_count)
        make_buckets(t, t->bucket_count * 2);
    return e;
}

struct node_table *node_table_new(int root_fd, uint32_t max, struct error *err)
{
    struct node_table *t;
    struct stat st;

    if (fstat(root_fd, &st) < 0) {
        error_sys(err, errno, "looking at the directory to be served");
        return NULL;
    }
    t = xcalloc(1, sizeof(*t));
    pthread_mutex_init(&t->lock, NULL);
    t->max = max;
    t->free = NONE;
    t->chunks = xcalloc(max / CHUNK + 1, sizeof(struct entry *));
    make_buckets(t, BUCKETS_MIN);
    fill(t, root_fd, &st);
    return t;
}

void node_table_free(struct node_table *t)
{
    if (!t)
        return;
    for (uint32_t i = 0; i < t->used; i++)
        fd_close(&at(t, i)->node.fd);
    for (uint32_t i = 0; i < t->used; i += CHUNK)
        free(t->chunks[i / CHUNK]);
    free(t->chunks);
    free(t->buckets);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* With the lock held. */
static struct entry *find_id(const struct node_table *t, uint64_t id)
{
    struct entry *e;

    if (id < NODE_ROOT || id - NODE_ROOT >= t->used)
        return NULL;
    e = at(t, (uint32_t)(id - NODE_ROOT));
    return e->lookups > 0 ? e : NULL;
}

struct node *node_get(struct node_table *t, uint64_t id)
{
    struct entry *e;

    pthread_mutex_lock(&t->lock);
    e = find_id(t, id);
    if (e)
        e->pins++;
    pthread_mutex_unlock(&t->lock);
    return e ? &e->node : NULL;
}

void node_put(struct node_table *t, struct node *n)
{
    struct entry *e;
    int fd = -1;

    if (!n)
        return;
    e = CONTAINER_OF(n, struct entry, node);
    pthread_mutex_lock(&t->lock);
    if (--e->pins == 0 && e->lookups == 0)
        fd = give_entry(t, e);
    pthread_mutex_unlock(&t->lock);
    fd_close(&fd);
}

static struct entry *find_file(const struct node_table *t, const struct stat *st)
{
    uint32_t i = *bucket(t, st->st_dev, st->st_ino);

    while (i != NONE && (at(t, i)->node.ino != st->st_ino || at(t, i)->node.dev != st->st_dev))
        i = at(t, i)->next;
    return i == NONE ? NULL : at(t, i);
}

int node_enter(struct node_table *t, int fd, const struct stat *st, uint64_t *id,
               uint64_t *generation)
{
    bool say = false;
    struct entry *e;

    pthread_mutex_lock(&t->lock);
    e = find_file(t, st);
    if (e) {
        e->lookups++;
    } else {
        e = fill(t, fd, st);
        if (e)
            fd = -1;
        say = !e && !t->full_said;
        t->full_said |= say;
    }
    if (e) {
        *id = e->index + NODE_ROOT;
        *generation = e->generation;
    }
    pthread_mutex_unlock(&t->lock);
    fd_close(&fd);
    if (say)
        log_warn(
            "hostfs",
            "the enclave's kernel knows as many files as descriptors may be open here; further "
            "ones get ENFILE: raise the limit of open files (ulimit -Hn)",
            kv_uint("max", t->max));
    return e ? 0 : ENFILE;
}

void node_forget(struct node_table *t, uint64_t id, uint64_t count)
{
    struct entry *e;
    int fd = -1;

    if (id == NODE_ROOT)
        return; /* it stays as long as the mount */
    pthread_mutex_lock(&t->lock);
    e = find_id(t, id);
    if (e) {
        e->lookups -= count < e->lookups ? count : e->lookups;
        if (e->lookups == 0 && e->pins == 0)
            fd = give_entry(t, e);
    }
    pthread_mutex_unlock(&t->lock);
    fd_close(&fd);
}
