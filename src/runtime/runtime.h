/* The state of capsule-runtime, shared by its files. */
#ifndef CAPSULE_RUNTIME_RUNTIME_H
#define CAPSULE_RUNTIME_RUNTIME_H

#include "api/capsule_api.h"
#include "codec/launch.h"
#include "enclave/clock_client.h"
#include "enclave/egress.h"
#include "enclave/ingress.h"
#include "enclave/log_server.h"
#include "enclave/mounts.h"
#include "enclave/status_server.h"
#include "enclave/supervise.h"
#include "manifest/manifest.h"
#include "runtime/options.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define RUNTIME_GRACE_MS 10000 /* for the app to stop, until the manifest has been read */
#define RUNTIME_SWEEP_MS 4000  /* for what the app left running: TERM, 2 s, KILL, and a margin */
#define RUNTIME_DRAIN_MS 1000  /* for the services, so that the end takes 5 s in all */
#define RUNTIME_FLUSH_MS 30000 /* for the host to take what was written to its mounts */
#define RUNTIME_TAKEN_MS 15000 /* for the host to take the final state and the log's end */

struct event_base;
struct nsm;

struct runtime {
    struct options options;
    pid_t guard; /* our parent; 0 in the guard itself */
    struct event_base *base;
    struct carrier *carrier;
    struct supervisor *supervisor;
    struct status_server *status;
    struct log_server *log;
    struct manifest *manifest;
    struct launch launch;
    struct nsm *nsm; /* NULL without one, which only --no-bootstrap allows */
    struct mounts *mounts;
    struct enclave_egress *egress;
    struct clock_client *clock;
    struct capsule_api *api;
    struct enclave_ingress *ingress;
    size_t started; /* services of the table that run */

    bool app_over;
    int wait_status;
    bool sweeping, swept;
    bool cancelled; /* asked to stop with no app running */
    bool fatal;
};

/*
 * A long-lived part of the runtime. Started in the order of the table, stopped in reverse; a start
 * that fails unwinds the ones before it (spec/runtime.md section 7).
 */
struct service {
    const char *name;
    /* Does nothing and returns 0 where the manifest does not ask for the service. */
    int (*start)(struct runtime *rt, struct error *err);
    void (*drain)(struct runtime *rt); /* no new work; may be NULL */
    void (*stop)(struct runtime *rt);  /* also after a failed start; may be NULL */
};

extern const struct service runtime_services[]; /* ends with a row without a name */

int services_start(struct runtime *rt, struct error *err);
void services_drain(struct runtime *rt);
void services_stop(struct runtime *rt);

/* What the services count, as the answer to the host's "stats"; `arg` is the struct runtime. */
void runtime_stats_format(void *arg, struct buf *line);

/*
 * Runs the loop until `done` or, unless timeout_ms is negative, the time is up. Returns what `done`
 * said last.
 */
bool runtime_wait(struct runtime *rt, bool (*done)(const struct runtime *rt), int64_t timeout_ms);

#endif
