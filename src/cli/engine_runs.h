/* Runs in containers whose capsule-cli was killed: only their engine knows how they are. */
#ifndef CAPSULE_CLI_ENGINE_RUNS_H
#define CAPSULE_CLI_ENGINE_RUNS_H

#include "runs/registry.h"

/*
 * Asks the engines of such runs, and makes RUN_UNWATCHED of those whose container still runs. An
 * engine that does not answer is warned of; its runs count as unwatched, too.
 */
void engine_runs_refresh(struct run_list *l);
/* Stops the container of an unwatched run within `ms`, kills it after that, and removes it. */
int engine_runs_stop(const struct run_entry *e, int64_t ms, struct error *err);
/*
 * Removes containers with our label that have ended and belong to no living run of the list, on all
 * engines that the list names and those of this machine that answer. *removed counts them.
 */
int engine_runs_prune(const struct run_list *l, size_t *removed, struct error *err);

#endif
