/* The state of capsule-shell, shared by its files. */
#ifndef CAPSULE_SHELL_SHELL_H
#define CAPSULE_SHELL_SHELL_H

#include "host/claim.h"
#include "host/clock_server.h"
#include "host/egress.h"
#include "host/ingress.h"
#include "host/log_reader.h"
#include "host/mounts.h"
#include "host/nsm_server.h"
#include "host/status_reader.h"
#include "launch/carrier_dir.h"
#include "launch/launcher.h"
#include "manifest/manifest.h"
#include "shell/options.h"

#include <stdbool.h>

#define SHELL_CID_UNIX      16u  /* one enclave a directory: any CID does */
#define SHELL_CID_CLASHES   16   /* CIDs whose ports were taken, before there is none */
#define SHELL_CID_LAUNCHES  3    /* CIDs with which the launcher failed for no clear reason */
#define SHELL_END_MS        5000 /* for the enclave to end by itself once all is read */
#define SHELL_STOP_EXTRA_MS 5000 /* beyond the grace, for the runtime's own end */

/* The exit statuses of spec/runtime.md section 2.3. */
enum {
    SHELL_EXIT_ERROR = 1,
    SHELL_EXIT_USAGE = 2,
    SHELL_EXIT_SIGNALED = 107,
    SHELL_EXIT_FATAL = 108,
    SHELL_EXIT_STOPPED = 109
};

struct event;
struct event_base;

/* The host ports to listen on, each for a port of the manifest's ingress. */
struct shell_ports {
    struct publish *items;
    size_t count;
};

struct shell {
    struct shell_options options;
    struct event_base *base;
    struct event *on_int, *on_term, *on_usr1;
    int eif_fd; /* what is measured is what runs; -1 when attached */
    struct manifest *manifest;
    struct shell_ports ports;
    struct mount_places places; /* of host mounts */

    const struct launcher_ops *launcher; /* NULL when attached to a foreign enclave */
    struct launched *launched;
    struct event *enclave_end, *console;
    struct carrier_dir dir;
    struct carrier *carrier;
    struct claim *claim;
    bool clock_may_clash; /* the last CID to try: rather without a clock service than not at all */
    bool other_cid;       /* the launcher's: another CID may help */
    size_t started;       /* services of the table that run */
    struct host_egress *egress;
    struct clock_server *clock;
    struct host_mounts *mounts;
    struct nsm_server *nsm;
    struct host_ingress *ingress;
    struct log_reader *log;
    struct status_reader *status;

    struct status final;  /* of the enclave; RUNNING until it is known */
    struct error failure; /* instead of a final state; kind ERR_NONE when there is none */
    bool log_finished;
    bool enclave_gone;
    bool app_reported;
    bool stopping; /* SIGINT or SIGTERM came */
    int stop_signal;
    bool kill_now; /* it came twice, or the grace is over */
};

/* A service of the host side, as in runtime/runtime.h: started in order, stopped in reverse. */
struct shell_service {
    const char *name;
    int (*start)(struct shell *sh, struct error *err);
    void (*drain)(struct shell *sh);
    void (*stop)(struct shell *sh);
};

/* Those that must listen before the enclave starts; ends with a row without a name. */
extern const struct shell_service shell_services[];

int shell_services_start(struct shell *sh, struct error *err);
void shell_services_stop(struct shell *sh);

/* Starts the enclave; sets sh->other_cid when it failed and another CID may help. */
typedef int shell_launch(struct shell *sh, struct error *err);

/*
 * The carrier, for the launcher or the attached directory, the claim on its ports, the services on
 * them, and the enclave. With AF_VSOCK all of it again, with another CID, where that may help
 * (spec/runtime.md section 3). On failure the caller takes down what there is, as after a run.
 */
int shell_link_start(struct shell *sh, shell_launch *launch, struct error *err);
/* Ends the claim and the carrier. Services must have stopped. */
void shell_link_close(struct shell *sh);

/*
 * Fills sh->ports: what -p names and, with --publish-all, every ingress port that no -p names.
 * Warns of a -p without ingress, which is left out, and of ingress that is not published (spec/
 * cli-and-build.md section 7.3). ERR_USAGE when two want one host port.
 */
int shell_ports_match(struct shell *sh, struct error *err);

/*
 * A line "KEY VALUE" to who started us, when --report-fd says where. Nothing depends on its being
 * read.
 */
void shell_report(const struct shell *sh, const char *key, const char *value);
/* What is known once everything but the enclave's app is up. */
void shell_report_start(const struct shell *sh);

/*
 * print-manifest: the manifest file's bytes, unchanged. describe-eif: the measurements of the EIF
 * as indented JSON without a final newline (spec/runtime.md section 2.1).
 */
int shell_command(const struct shell_options *o, struct error *err);

/* Runs the loop until `done` or the time is up (negative: no limit). Returns what it said last. */
bool shell_wait(struct shell *sh, bool (*done)(const struct shell *sh), int64_t timeout_ms);

#endif
