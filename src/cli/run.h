/* What the files of `capsule-cli run` share. */
#ifndef CAPSULE_CLI_RUN_H
#define CAPSULE_CLI_RUN_H

#include "base/proc.h"
#include "cli/publish.h"
#include "cli/run_mounts.h"
#include "container/engine.h"
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
    const char *engine; /* as container_engine_open() takes it; NULL: not asked for */
    bool pull;
    bool privileged;
    bool host_network;
    uint32_t cpu_count; /* 0: not given */
    uint32_t memory_mb;
    /* What they mean. */
    char *image;                     /* how the image is called in lists */
    char *eif;                       /* absolute path */
    struct buf manifest;             /* the bytes for the shell */
    struct container_engine through; /* the engine that has the image; socket NULL: none */
    /* What is written down about it. */
    struct run_place place;
    struct run_record record;
};

int run_options_parse(int argc, char **argv, struct run *r, struct error *err);

/*
 * Fills r->image, and r->eif and r->manifest, which it loads; or r->through, when an engine was
 * asked for or is the only one to have the image: *m is then the manifest of -f, or NULL. The
 * caller frees *m.
 */
int run_image_find(struct run *r, struct manifest **m, struct error *err);

/* Writes the record anew; what goes wrong is warned of, as the run itself goes on. */
void run_save(const struct run *r);
/* Does a -p lead to this port of the enclave? */
bool run_publishes(const struct run *r, uint16_t enclave_port);

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

/* The same in a container of r->through; `m` may be NULL. `up` is called when it has been started.
 */
int run_container(struct run *r, const struct manifest *m, int signals, void (*up)(void *arg),
                  void *arg, struct error *err);

/*
 * Takes the grace from the manifest in the container, warns where ports do not fit its ingress, and
 * binds the mounts to it, also when -f named another: it is the one that capsule-shell goes by. One
 * that cannot be read is warned of; with --mount it is an error.
 */
int run_heed_packed(struct run *r, const char *id, struct error *err);

/*
 * Goes on in the background. Returns 1 in the new process, whose output goes to the run's log and
 * which calls run_detached_up() with *told when the app has been started; 0 in the old one, once
 * that has happened, or the new one has ended before, with the exit status in *status; -1.
 */
int run_detach(struct run *r, int signals, int *told, int *status, struct error *err);
void run_detached_up(void *told);

#endif
