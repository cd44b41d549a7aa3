#include "hostfs/handle.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>

#define CHUNK 256u
#define NONE  UINT32_MAX

struct entry {
    struct handle handle;
    uint32_t index;
    uint32_t next; /* in the free list */
    uint32_t generation;
    uint32_t pins;
    bool open; /* its number is good */
};

struct handle_table {
    pthread_mutex_t lock;
    struct entry **chunks;
    uint32_t used, live, max, free;
};

static struct entry *at(const struct handle_table *t, uint32_t index)
{
    return &t->chunks[index / CHUNK][index % CHUNK];
}

struct handle_table *handle_table_new(uint32_t max)
{
    struct handle_table *t = xcalloc(1, sizeof(*t));

    pthread_mutex_init(&t->lock, NULL);
    t->max = max;
    t->free = NONE;
    t->chunks = xcalloc(max / CHUNK + 1, sizeof(struct entry *));
    return t;
}

void handle_table_free(struct handle_table *t)
{
    if (!t)
        return;
    for (uint32_t i = 0; i < t->used; i++) {
        fd_close(&at(t, i)->handle.fd);
        free(at(t, i)->handle.listing);
    }
    for (uint32_t i = 0; i < t->used; i += CHUNK)
        free(t->chunks[i / CHUNK]);
    free(t->chunks);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static struct entry *take_entry(struct handle_table *t)
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
    return e;
}

int handle_add(struct handle_table *t, enum handle_kind kind, int fd, bool writable, uint64_t node,
               uint64_t *number)
{
    struct entry *e;

    pthread_mutex_lock(&t->lock);
    e = take_entry(t);
    if (e) {
        e->handle = (struct handle){.kind = kind, .fd = fd, .writable = writable, .node = node};
        pthread_mutex_init(&e->handle.lock, NULL);
        e->open = true;
        e->generation++;
        *number = (uint64_t)e->generation << 32 | e->index;
        fd = -1;
    }
    pthread_mutex_unlock(&t->lock);
    fd_close(&fd);
    return e ? 0 : ENFILE;
}

/* With the lock held. */
static struct entry *find(const struct handle_table *t, uint64_t number, enum handle_kind kind)
{
    uint32_t index = (uint32_t)number;
    struct entry *e;

    if (index >= t->used)
        return NULL;
    e = at(t, index);
    return e->open && e->generation == number >> 32 && e->handle.kind == kind ? e : NULL;
}

struct handle *handle_get(struct handle_table *t, uint64_t number, enum handle_kind kind)
{
    struct entry *e;

    pthread_mutex_lock(&t->lock);
    e = find(t, number, kind);
    if (e)
        e->pins++;
    pthread_mutex_unlock(&t->lock);
    return e ? &e->handle : NULL;
}

/* With the lock held; what it returns is to be closed without it. */
static int give_entry(struct handle_table *t, struct entry *e)
{
    int fd = e->handle.fd;

    free(e->handle.listing);
    pthread_mutex_destroy(&e->handle.lock);
    e->handle = (struct handle){.fd = -1};
    e->next = t->free;
    t->free = e->index;
    t->live--;
    return fd;
}

void handle_put(struct handle_table *t, struct handle *h)
{
    struct entry *e;
    int fd = -1;

    if (!h)
        return;
    e = CONTAINER_OF(h, struct entry, handle);
    pthread_mutex_lock(&t->lock);
    if (--e->pins == 0 && !e->open)
        fd = give_entry(t, e);
    pthread_mutex_unlock(&t->lock);
    fd_close(&fd);
}

void handle_remove(struct handle_table *t, uint64_t number, enum handle_kind kind)
{
    struct entry *e;
    int fd = -1;

    pthread_mutex_lock(&t->lock);
    e = find(t, number, kind);
    if (e) {
        e->open = false;
        if (e->pins == 0)
            fd = give_entry(t, e);
    }
    pthread_mutex_unlock(&t->lock);
    fd_close(&fd);
}

bool handle_writes(struct handle_table *t, uint64_t node)
{
    bool found = false;

    pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < t->used && !found; i++) {
        const struct entry *e = at(t, i);

        found = (e->open || e->pins > 0) && e->handle.writable && e->handle.node == node;
    }
    pthread_mutex_unlock(&t->lock);
    return found;
}
