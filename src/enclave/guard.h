/*
 * The guard of the runtime (spec/runtime.md section 5.3, point 5). The process that was started
 * (PID 1 of an enclave) forks, and its child is the runtime proper. The guard does nothing but
 * wait, so that there is somebody left to tell the host when the runtime dies of a signal.
 */
#ifndef CAPSULE_ENCLAVE_GUARD_H
#define CAPSULE_ENCLAVE_GUARD_H

#include "base/error.h"

#include <stddef.h>

/* For what the app left behind to end, once it has been killed. */
#define GUARD_KILL_MS 2000

enum guard_side {
    GUARD_FAILED = -1, /* there is only one process: err says why */
    GUARD_RUNTIME,     /* this is the runtime; its parent is the guard */
    GUARD_OVER         /* this is the guard, and the runtime has ended */
};

/*
 * Splits the process. Call it before threads, loops and descriptors that the guard should not hold.
 *
 * In the runtime the signals of supervisor_signals() are blocked. Those that reach the guard are
 * passed on to it, and the guard's death kills it.
 *
 * In the guard it returns when the runtime has ended, with its wait status as from waitpid(2).
 * Until then orphans that come this far are reaped. A runtime that was killed by a signal takes
 * everything that it started along: that has been killed, too, when this returns, or could not be
 * within GUARD_KILL_MS. All descriptors above 2 are closed but `keep`, which
 * is ascending and may hold -1; the runtime has them all.
 */
enum guard_side guard_split(const int *keep, size_t count, int *wait_status, struct error *err);

#endif
