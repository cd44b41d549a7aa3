/*
 * Limits by control groups (cgroups(7); Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst):
 * memory, CPU time and number of tasks, where the machine lets this process make groups. Version 1
 * controllers below the process's own group; version 2 beside it or above, at the nearest place
 * that hands the controllers down.
 */
#ifndef CAPSULE_LAUNCH_SANDBOX_CGROUP_H
#define CAPSULE_LAUNCH_SANDBOX_CGROUP_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>
#include <sys/types.h>

#define CGROUP_PIDS_MAX   8192u
#define CGROUP_GROUPS_MAX 4

struct cgroup_limits {
    unsigned int memory_mb;
    unsigned int cpu_count;
};

/* The groups of one sandbox: at most one a version 1 controller, or one of version 2. */
struct cgroup_set {
    char *path[CGROUP_GROUPS_MAX];
    unsigned int count;
    bool memory, cpu, pids; /* the limit is in force */
};

/* Where the kernel describes this process's groups; tests have their own files. */
struct cgroup_sources {
    const char *mountinfo;
    const char *cgroup;
};
extern const struct cgroup_sources cgroup_of_self;

/*
 * Makes groups called `name` with the limits, as far as the machine allows: *out says which there
 * are. Never fails: a machine without is ordinary. `why` (at least 1 byte) says what was missing.
 */
void cgroup_make(const struct cgroup_sources *src, const char *name,
                 const struct cgroup_limits *limits, struct cgroup_set *out, char *why,
                 size_t why_size);
/* Moves a process of ours in. */
int cgroup_add(const struct cgroup_set *set, pid_t pid, struct error *err);
/*
 * Removes the groups and frees the set. Waits up to 2 s for the kernel to let go of processes that
 * have just died, and kills those that have not.
 */
int cgroup_remove(struct cgroup_set *set, struct error *err);

#endif
