/*
 * Which identities the sandbox runs under, and work done under them. Every sandbox has a user
 * namespace (user_namespaces(7)), root's too: capabilities inside then mean nothing to the machine.
 *
 *   root              0..65535 inside are 65536 ids that belong to nobody outside
 *   user with subids  0 is the user, 1.. are the user's range of /etc/subuid and /etc/subgid
 *   other user        0 is the user; there is no other id inside
 */
#ifndef CAPSULE_LAUNCH_IDMAP_H
#define CAPSULE_LAUNCH_IDMAP_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Root's range: unused in the table of systemd's UIDS-GIDS document, far from any account. */
#define IDMAP_ROOT_BASE  1879048192u
#define IDMAP_ROOT_COUNT 65536u

struct idmap_extent {
    uint32_t inside;
    uint32_t outside;
    uint32_t count;
};

struct idmap {
    struct idmap_extent uid[2], gid[2];
    unsigned int extents; /* used of both arrays */
    bool by_helper;       /* newuidmap and newgidmap write it */
    bool single;          /* only 0 exists inside */
    bool deny_setgroups;
    uid_t root_uid; /* what 0 inside is outside */
    gid_t root_gid;
    char tag[32]; /* names the map; part of a cache key: files of one map are no good in another */
};

/* The best map for the calling process. `why_single` (may be NULL) gets the reason of a single one.
 */
int idmap_choose(struct idmap *out, char *why_single, size_t why_size, struct error *err);

/* Reads the files of /etc and /proc from elsewhere: for tests. */
struct idmap_sources {
    const char *subuid, *subgid, *passwd, *own_uid_map, *own_gid_map;
    const char *newuidmap, *newgidmap; /* program names */
};
void idmap_choose_from(const struct idmap_sources *src, uid_t uid, gid_t gid, struct idmap *out,
                       char *why_single, size_t why_size);

/* Gives the user namespace of process `pid`, a fresh child of ours, this map. */
int idmap_apply(const struct idmap *map, pid_t pid, struct error *err);

/*
 * In a process that is alone in a fresh user namespace with the map: becomes 0:0 inside, without
 * supplementary groups where the kernel allows that. Allocates nothing.
 */
int idmap_enter(const struct idmap *map, struct error *err);

/*
 * Runs fn(arg) in a forked process that is 0:0 of a fresh user namespace with the map, and waits.
 * Its error is passed on; so is, as an error, its death. Descriptors opened before are usable
 * inside whoever owns their files.
 */
int idmap_call(const struct idmap *map, int (*fn)(void *arg, struct error *err), void *arg,
               struct error *err);

/*
 * tree_remove() of a tree whose files belong to ids of the map, when no process is left that could
 * change it. Only a map with subordinate ids needs a process inside for that.
 */
int idmap_tree_remove(const struct idmap *map, const char *path, struct error *err);

/* Adds the hint that fits an errno of making a user namespace (which sysctl, which confinement). */
int idmap_hint(struct error *err, int sys);

#endif
