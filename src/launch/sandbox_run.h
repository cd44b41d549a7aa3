/*
 * The working directory of one running sandbox, below ~/.cache/capsule/sandbox/runs. Its lock lives
 * as long as the process that made it, so that the next one can tell, and clear away, what a killed
 * one has left behind: the directory itself and its control groups.
 */
#ifndef CAPSULE_LAUNCH_SANDBOX_RUN_H
#define CAPSULE_LAUNCH_SANDBOX_RUN_H

#include "launch/idmap.h"
#include "launch/sandbox_cgroup.h"

struct sandbox_run {
    char *path;
    char *name; /* last part of path; unique on this machine */
    int lock_fd;
    struct idmap map;
};
#define SANDBOX_RUN_NONE ((struct sandbox_run){.lock_fd = -1})

/*
 * The cache directory of the sandbox, made if need be: $XDG_CACHE_HOME or $HOME/.cache, then
 * /capsule/sandbox, private to the caller. The caller frees *path.
 */
int sandbox_cache_dir(char **path, struct error *err);

/*
 * Makes the directory with, inside, `mnt` (an empty directory to mount on) and `disk/upper`,
 * `disk/work` given to the map's root; clears away what dead processes left.
 */
int sandbox_run_make(const char *cache, const struct idmap *map, struct sandbox_run *out,
                     struct error *err);
/* Clears away what dead processes left, as every start of a sandbox does. */
int sandbox_sweep(struct error *err);
/* Notes the control groups, before any process is in them. */
int sandbox_run_note(const struct sandbox_run *run, const struct cgroup_set *set,
                     struct error *err);
/* Removes the directory and frees. Safe on SANDBOX_RUN_NONE. */
int sandbox_run_remove(struct sandbox_run *run, struct error *err);

#endif
