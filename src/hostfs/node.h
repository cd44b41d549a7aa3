/*
 * The files and directories that an enclave's kernel knows: one O_PATH descriptor each, found by
 * node id or by device and inode number. A descriptor, unlike a path, still means the same file
 * after a rename, an unlink or a swap of directories on the host.
 *
 * Ids come from an enclave, so that every use is a look-up in the table, never a pointer. All
 * functions may be called from any thread.
 */
#ifndef CAPSULE_HOSTFS_NODE_H
#define CAPSULE_HOSTFS_NODE_H

#include "base/error.h"

#include <stdint.h>
#include <sys/stat.h>

#define NODE_ROOT 1u /* FUSE_ROOT_ID */

struct node_table;

/* What a request needs of a node. Lives, with its descriptor, until node_put(). */
struct node {
    int fd; /* O_PATH */
    mode_t type;
    dev_t dev;
    ino_t ino;
};

/* A table with the root in it, whose descriptor it takes over, and room for `max` nodes. */
struct node_table *node_table_new(int root_fd, uint32_t max, struct error *err);
/* Closes every descriptor. No request may be under way. */
void node_table_free(struct node_table *t);

/* The node of an id, held until node_put(); NULL when the enclave has no such node. */
struct node *node_get(struct node_table *t, uint64_t id);
void node_put(struct node_table *t, struct node *n);

/*
 * Counts one look-up of the file behind an O_PATH descriptor, which is taken over or closed, also
 * on failure. Fills id and generation, which together never repeat. Returns 0, or ENFILE when the
 * table is full (logged once).
 */
int node_enter(struct node_table *t, int fd, const struct stat *st, uint64_t *id,
               uint64_t *generation);
/* Takes back `count` look-ups; with none left the node goes. A wrong id or count is ignored. */
void node_forget(struct node_table *t, uint64_t id, uint64_t count);

#endif
