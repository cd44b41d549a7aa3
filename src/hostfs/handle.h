/*
 * What an enclave has open: files and directories by number. The numbers come back from the
 * enclave, so that each is looked up. All functions may be called from any thread.
 */
#ifndef CAPSULE_HOSTFS_HANDLE_H
#define CAPSULE_HOSTFS_HANDLE_H

#include "base/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HANDLE_LISTING 32768 /* bytes of a directory read ahead */

struct handle_table;

enum handle_kind {
    HANDLE_FILE,
    HANDLE_DIRECTORY
};

struct handle {
    enum handle_kind kind;
    int fd;
    bool writable;
    uint64_t node;
    /* Directories: entries read ahead as getdents64(2) gives them, under the lock. */
    pthread_mutex_t lock;
    uint8_t *listing; /* HANDLE_LISTING bytes, or NULL before the first use */
    size_t listed, taken;
    int64_t position; /* the cookie that leads to listing[taken] */
};

struct handle_table *handle_table_new(uint32_t max);
/* Closes everything. No request may be under way. */
void handle_table_free(struct handle_table *t);

/* Takes over the descriptor, on failure (ENFILE) too. Returns 0 and the number, or an errno. */
int handle_add(struct handle_table *t, enum handle_kind kind, int fd, bool writable, uint64_t node,
               uint64_t *number);
/* The handle, held until handle_put(); NULL when there is none of that number and kind. */
struct handle *handle_get(struct handle_table *t, uint64_t number, enum handle_kind kind);
void handle_put(struct handle_table *t, struct handle *h);
/* The number means nothing any more; the descriptor is closed after the last handle_put(). */
void handle_remove(struct handle_table *t, uint64_t number, enum handle_kind kind);
/* Whether a node is open for writing anywhere. */
bool handle_writes(struct handle_table *t, uint64_t node);

#endif
