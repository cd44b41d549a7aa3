/*
 * The runs of this user on this machine: one directory each, RUNS/ID, where RUNS is "runs" in
 * xdg_runtime_dir(). In it are `run.json`, `lock`, on which the capsule-cli that watches over the
 * run holds flock() for its life, and, of a detached run, its log (log.h). The locks tell what
 * lives, whatever was killed; the records say what it was.
 */
#ifndef CAPSULE_RUNS_REGISTRY_H
#define CAPSULE_RUNS_REGISTRY_H

#include "runs/record.h"

#define RUNS_MAX   1024 /* directories that are looked at */
#define RUNS_KEPT  32   /* ended runs that are remembered */
#define RUNS_SPARE 8    /* and as many more before the oldest are forgotten */

/* The path of RUNS, made when missing; the caller frees it. */
char *runs_dir(struct error *err);

/* A run of this process. */
struct run_place {
    char *dir; /* of the run; NULL when it has none */
    int lock_fd;
};
#define RUN_PLACE_NONE ((struct run_place){.lock_fd = -1})
/* Lets go of it; the directory stays. */
void run_place_close(struct run_place *p);
#define AUTO_RUN_PLACE CLEANUP(run_place_close)

/*
 * Makes a new run's directory, locks it, and sets the record's id, boot, started_ms and supervisor
 * (this process). Forgets the oldest ended runs above RUNS_KEPT. ERR_EXISTS when a living run has
 * record->name.
 */
int runs_begin(const char *runs, struct run_record *record, struct run_place *out,
               struct error *err);
/* Writes run.json anew, whole or not at all. Nothing when there is no place. */
int run_place_save(const struct run_place *p, const struct run_record *record, struct error *err);

enum run_state {
    RUN_STARTING,
    RUN_RUNNING,
    RUN_STOPPING,  /* its supervisor was killed, its shell still tidies up */
    RUN_UNWATCHED, /* likewise, and its container still runs: for who has asked the engine */
    RUN_EXITED,
    RUN_DIED, /* killed with its supervisor: how it ended is not known */
};
const char *run_state_name(enum run_state state);
static inline bool run_state_lives(enum run_state state)
{
    return state <= RUN_UNWATCHED;
}

struct run_entry {
    struct run_record record;
    enum run_state state;
    char *dir;
};
void run_entry_free(struct run_entry *e);
#define AUTO_RUN_ENTRY CLEANUP(run_entry_free)

struct run_list {
    struct run_entry *items;
    size_t count;
};
void run_list_free(struct run_list *l);
#define AUTO_RUN_LIST CLEANUP(run_list_free)

/* All runs, the newest first. A record that cannot be read is warned of and left out. */
int runs_list(const char *runs, struct run_list *out, struct error *err);
/*
 * The run that `ref` means: a name (of a living run, else of the newest), an ID, or the beginning
 * of one that no other has. Takes it out of the list.
 */
int run_list_take(struct run_list *l, const char *ref, struct run_entry *out, struct error *err);
/* How it is now, from its lock and record (which is read anew when it has changed). */
int run_entry_refresh(struct run_entry *e, struct error *err);

/*
 * Removes every run that does not live, but those for which `keep` (may be NULL) says true.
 * `removed` gets how many those were.
 */
int runs_prune(const char *runs, bool (*keep)(void *arg, const struct run_entry *e), void *arg,
               size_t *removed, struct error *err);

#endif
