/*
 * Watches over the app from start to end (spec/runtime.md sections 4.3, 5.3). The runtime is the
 * subreaper of what it started, so every process that loses its parent ends up here and is reaped.
 * Signals arrive as ordinary events of the loop.
 */
#ifndef CAPSULE_ENCLAVE_SUPERVISE_H
#define CAPSULE_ENCLAVE_SUPERVISE_H

#include "base/error.h"
#include "enclave/app.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct supervisor;

#define SUPERVISE_DESCENDANTS_MS 2000 /* between TERM and KILL after the app has ended */

struct supervisor_spec {
    struct event_base *base;
    uint32_t grace_ms; /* between TERM and KILL when nobody says otherwise */
    pid_t only_from;   /* signals of other senders count for nothing; 0: anybody's count */
    bool owns_all;     /* every process but this one and PID 1 descends from the app */
    /* The app has ended with this wait status. Its descendants are still there. */
    void (*app_ended)(void *arg, int wait_status);
    /* supervisor_sweep() is done: nothing that we started is left. */
    void (*swept)(void *arg);
    /* SIGTERM or SIGINT came while no app runs: before its start or after its end. */
    void (*cancelled)(void *arg);
    void *arg;
};

/* The signals it listens to: CHLD, TERM, INT, and those that are passed on to the app. */
void supervisor_signals(sigset_t *out);
/*
 * Takes over the signals of the process: blocks them in this thread, so call before others start.
 * TERM and INT stop the app; HUP, USR1, USR2, WINCH and QUIT are passed on to it.
 */
int supervisor_new(const struct supervisor_spec *spec, struct supervisor **out, struct error *err);
int supervisor_start_app(struct supervisor *s, const struct app_spec *app, struct error *err);
/*
 * TERM to the app's process group, KILL after the grace. A second call only shortens what is left
 * of it. Before the app's start it calls `cancelled`; after its end it does nothing.
 */
void supervisor_stop_app(struct supervisor *s, uint32_t grace_ms);
/* The same with the grace of the spec, or of supervisor_set_grace() since. */
void supervisor_stop_app_by_grace(struct supervisor *s);
void supervisor_set_grace(struct supervisor *s, uint32_t grace_ms);
/* TERM, two seconds, KILL to everything that the app left running; ends with `swept`. */
void supervisor_sweep(struct supervisor *s);
void supervisor_free(struct supervisor *s);

#endif
