/*
 * What is written down about one run of a capsule on this machine: the file run.json in its
 * directory (registry.h). The directory is its user's alone; reading is bounded and strict all the
 * same.
 */
#ifndef CAPSULE_RUNS_RECORD_H
#define CAPSULE_RUNS_RECORD_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>
#include <sys/types.h>

#define RUN_ID_LEN      12 /* lower-case hex digits */
#define RUN_NAME_MAX    63
#define RUN_RECORD_MAX  65536 /* bytes of run.json */
#define RUN_PORTS_MAX   1024
#define RUN_BOOT_ID_LEN 36

/* A process that cannot be mistaken for a later one of the same number. */
struct run_process {
    pid_t pid;      /* 0: none */
    uint64_t start; /* when it started, in clock ticks after boot: proc(5), field 22 of stat */
};

struct run_record {
    char id[RUN_ID_LEN + 1];
    char boot[RUN_BOOT_ID_LEN + 1]; /* of the boot in which it was started */
    char *name;                     /* "" when it was given none */
    char *image;
    char *launcher;  /* "" while it is not known */
    char *engine;    /* socket of the container engine; "" for a shell of this machine */
    char *container; /* its ID there, or "" */
    char **ports;    /* "[ADDR:]HOST:CONTAINER"; strv, NULL for none */
    uint32_t cid;    /* 0 while it is not known */
    uint32_t grace_secs;
    int64_t started_ms;            /* since 1970 */
    int64_t ended_ms;              /* 0 while it runs */
    int status;                    /* exit status, once it has ended */
    bool detached;                 /* its output is in the log beside the record */
    bool up;                       /* its app has been started */
    struct run_process supervisor; /* the capsule-cli that holds the lock */
    struct run_process shell;
};

void run_record_free(struct run_record *r);
#define AUTO_RUN_RECORD CLEANUP(run_record_free)

/* Appends the JSON. -1 when it does not fit. */
int run_record_format(const struct run_record *r, struct buf *out, struct error *err);
/* Fills *out, which the caller frees; untouched on failure. Unknown members are ignored. */
int run_record_parse(struct slice text, struct run_record *out, struct error *err);

/* 1 to RUN_NAME_MAX of letters, digits and "_.-", the first a letter or digit. ERR_USAGE. */
int run_name_check(const char *name, struct error *err);

/* Fills in a living process; false, and {0}, when there is none of that number. */
bool run_process_of(pid_t pid, struct run_process *out);
/*
 * A pidfd of the very process that was written down, which the caller closes; -1 when it is gone
 * or was of another boot.
 */
int run_process_open(const struct run_record *r, const struct run_process *p);
/* The identity of this boot: random(4), boot_id. */
void run_boot_id(char out[RUN_BOOT_ID_LEN + 1]);

#endif
