/* What the files of `capsule-cli run` share. */
#ifndef CAPSULE_CLI_RUN_H
#define CAPSULE_CLI_RUN_H

#include "base/proc.h"
#include "cli/publish.h"
#include "cli/run_mounts.h"
#include "manifest/manifest.h"
#include "runs/registry.h"

struct run {
    /* From the command line; borrowed. */
    const char *operand; /* IMAGE or FILE.eif */
    const char *file;    /* of -f */
    const char *launcher;
    const char *name;
    struct publish_list ports;
    struct run_mounts mounts;
    bool publish_all;
    bool debug;
    bool detach;
    uint32_t cpu_count; /* 0: not given */
    uint32_t memory_mb;
    /* What they mean. */
    char *image;         /* how the image is called in lists */
    char *eif;           /* absolute path */
    struct buf manifest; /* the bytes for the shell */
    /* What is written down about it. */
    struct run_place place;
    struct run_record record;
};

int run_options_parse(int argc, char **argv, struct run *r, struct error *err);
/* FILE.eif or a path; anything else is the name of an image. */
bool run_is_file(const char *operand);

/* Fills r->image, r->eif and r->manifest, and loads the latter; the caller frees *m. */
int run_image_find(struct run *r, struct manifest **m, struct error *err);

/*
 * Takes INT, TERM, HUP (unless it is ignored), USR1 and TSTP of this process as readable bytes of a
 * signalfd, which the caller closes; -1 with err. To be called before what must not miss them.
 */
int run_signals_open(struct error *err);
/* The next signal, or 0 when there is none. */
int run_signals_next(int fd);

/*
 * Watches over a shell that reports to `report`, until it ends; see run_shell().
 */
int run_supervise(struct run *r, struct proc *shell, int report, int signals, void (*up)(void *arg),
                  void *arg, struct error *err);
/*
 * Starts capsule-shell and watches over it: signals are passed on, what comes up and how it ends
 * is written into the record. Returns the shell's exit status, 128 + signal when it was killed, or
 * -1 when it could not be started. `up` (may be NULL) is called once, when the app has been
 * started.
 */
int run_shell(struct run *r, int signals, void (*up)(void *arg), void *arg, struct error *err);

/*
 * Goes on in the background. Returns 1 in the new process, whose output goes to the run's log and
 * which calls run_detached_up() with *told when the app has been started; 0 in the old one, once
 * that has happened, or the new one has ended before, with the exit status in *status; -1.
 */
int run_detach(struct run *r, int signals, int *told, int *status, struct error *err);
void run_detached_up(void *told);

#endif
