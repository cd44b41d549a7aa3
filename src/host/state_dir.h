/*
 * State directories: where the bytes of a host mount live on the parent (spec/cli-and-build.md
 * sections 6.2 and 7.1). On disk, compatible with the reference:
 *
 *   STATE_DIR/.capsule-hostfs/
 *     lock            flock(LOCK_EX), held as long as the mount is served
 *     disk.img        sparse ext4 image; disk.img.tmp while it is made
 *     disk.img.grow   there while the image is being grown
 *     mnt-UUID/data   where this run has it mounted
 *     tree/           instead of an image, for an ordinary user: no loop device, no size limit
 *
 * Nothing below STATE_DIR is reached through a symbolic link, and nothing is ever removed
 * recursively. One thread uses a state_dir at a time.
 */
#ifndef CAPSULE_HOST_STATE_DIR_H
#define CAPSULE_HOST_STATE_DIR_H

#include "base/error.h"
#include "base/mem.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct state_dir;

#define STATE_SIZE_MB_MAX ((uint64_t)INT64_MAX >> 20) /* size in bytes fits 63 bits */

/*
 * Opens one; `create` makes what is missing, parents included, with mode 0700. Takes no lock.
 * Without `create` a directory that was never used for a mount is ERR_NOT_FOUND; one that belongs
 * to another user is ERR_DENIED always. The caller owns *out.
 */
int state_dir_open(const char *path, bool create, struct state_dir **out, struct error *err);
/* STATE_DIR, absolute and resolved. Borrowed. */
const char *state_dir_path(const struct state_dir *sd);
/* Whether both are the same directory, by device and inode. */
bool state_dir_same(const struct state_dir *a, const struct state_dir *b);

/*
 * Gets it ready to be served: takes the lock; releases what a killed run left mounted; makes,
 * checks and grows the image to `size_mb` MiB; mounts it with nodev, nosuid, noexec and noatime.
 * For an ordinary user: makes `tree`, with a warning that size_mb has no effect.
 *
 * ERR_EXISTS when it is in use, with the users' names; ERR_INVALID when the image is larger than
 * size_mb, damaged or cut off. After a failure nothing is mounted or locked, and the image is as
 * it was or a step further on the way.
 */
int state_dir_prepare(struct state_dir *sd, uint64_t size_mb, bool read_only, struct error *err);
/* The directory to serve, between prepare and release; else NULL. Borrowed. */
const char *state_dir_served(const struct state_dir *sd);
/*
 * Whether what is to be served is also there for another process: an image is mounted for the
 * mount namespace of this one only, and those that get mounts from it. False when it cannot be
 * known. Between prepare and release.
 */
bool state_dir_seen_by(struct state_dir *sd, pid_t pid);
/*
 * The descriptor that holds the lock, -1 when there is none. A process that inherits it keeps the
 * directory locked as long as it lives. Borrowed.
 */
int state_dir_lock_fd(const struct state_dir *sd);
/*
 * Writes everything out and unmounts: five tries in a second, then it detaches the mount and warns
 * who still uses it. Removes the mount point and gives up the lock. What cannot be undone stays,
 * and the error says where. Again is fine.
 */
int state_dir_release(struct state_dir *sd, struct error *err);
/* Releases, with a warning when that fails, and frees. NULL is fine. */
void state_dir_close(struct state_dir *sd);

static inline void state_dir_closep(struct state_dir **sd)
{
    state_dir_close(*sd);
    *sd = NULL;
}
#define AUTO_STATE_DIR CLEANUP(state_dir_closep)

/* ---- for `capsule-cli mount` ---- */

enum state_kind {
    STATE_EMPTY, /* no image yet */
    STATE_IMAGE,
    STATE_TREE,
};

enum state_fs {
    STATE_FS_NONE, /* not an image, or one that may not be read */
    STATE_FS_CLEAN,
    STATE_FS_DIRTY,   /* mounted, or it was not unmounted: the next run replays its journal */
    STATE_FS_DAMAGED, /* known to have errors */
    STATE_FS_CUT,     /* the file is shorter than its file system */
    STATE_FS_UNKNOWN, /* no ext4 in it */
};

struct state_report {
    enum state_kind kind;
    enum state_fs fs;
    uint64_t size;    /* bytes of the image, else 0 */
    uint64_t used;    /* bytes in its file system, 0 when unknown; of a dirty one, an estimate */
    uint64_t on_disk; /* bytes it occupies on the host */
    bool locked;
    bool mounted;    /* mounted and not locked: left behind by a killed run */
    char users[256]; /* "capsule-shell (process 123), ..."; empty when none can be seen */
};

/* Looks, and changes nothing. */
int state_dir_report(struct state_dir *sd, struct state_report *out, struct error *err);
/*
 * Paths of the state directories that are in use or mounted here, as far as this user can see,
 * added to *paths (a list as in base/strv.h, which the caller owns).
 */
void state_dir_discover(char ***paths);
/*
 * e2fsck of the image: without `repair` it changes nothing. What it printed, at most 64 KiB, is
 * appended to `out`. Returns 1 when the file system is, or now is, sound; 0 when it is not;
 * -1 when it could not be checked, ERR_EXISTS when it is in use.
 */
int state_dir_check(struct state_dir *sd, bool repair, struct buf *out, struct error *err);
/* Grows the image. ERR_INVALID, naming both sizes, when it is larger already. */
int state_dir_resize(struct state_dir *sd, uint64_t size_mb, struct error *err);

#endif
