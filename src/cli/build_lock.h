/* What --lock and --locked of `build` mean, and what a capsule.lock beside the manifest does. */
#ifndef CAPSULE_CLI_BUILD_LOCK_H
#define CAPSULE_CLI_BUILD_LOCK_H

#include "manifest/manifest.h"
#include "oci/lock.h"

enum lock_mode {
    LOCK_USE,     /* a lock that is there is followed */
    LOCK_RENEW,   /* --lock: none is followed, a new one is written */
    LOCK_REQUIRE, /* --locked: what is neither locked nor pinned is refused */
};

/* Zero-initialise. */
struct build_lock {
    enum lock_mode mode;
    char *path;      /* NULL: there can be none, the manifest came from standard input */
    const char *dir; /* of the manifest; borrowed */
    bool found;
    struct buf text; /* as it was found */
    struct lock old, new;
};
void build_lock_free(struct build_lock *l);

/* Reads capsule.lock beside the manifest `file`, unless it is to be renewed. */
int build_lock_open(struct build_lock *l, enum lock_mode mode, const char *file,
                    const struct manifest *m, struct error *err);
/*
 * What to load for a source of the manifest (`name` as the manifest calls it). Refuses what is not
 * pinned where that is asked for, and references that the lock knows otherwise. The caller frees
 * it; NULL with err.
 */
char *build_lock_reference(const struct build_lock *l, const char *name, const char *reference,
                           struct error *err);
/* Holds what came against the lock, or takes it into the new one. */
int build_lock_take(struct build_lock *l, const char *name, const char *reference,
                    const struct digest *image, const char *repo_digest, struct error *err);
/* Writes the new lock when one is wanted and it differs from what is there. */
int build_lock_save(const struct build_lock *l, struct error *err);

#endif
