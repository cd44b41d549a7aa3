/*
 * The status listener (port 17000): every connection gets the current state and each change; the
 * final state is sticky and also reaches those who connect late. The host may send "stop" and
 * "stats".
 */
#ifndef CAPSULE_ENCLAVE_STATUS_SERVER_H
#define CAPSULE_ENCLAVE_STATUS_SERVER_H

#include "vsock/carrier.h"
#include "vsock/status.h"

struct event_base;
struct status_server;

struct status_server_spec {
    struct event_base *base;
    struct carrier *carrier;
    /* The host asked to stop (at most one command a second gets here). */
    void (*stop)(void *arg, const struct host_command *cmd);
    /* May be NULL. Appends the answer to "stats", a line with its newline (at most one a second).
     */
    void (*stats)(void *arg, struct buf *line);
    void *arg;
};

/* Starts in phase "booting". */
int status_server_start(const struct status_server_spec *spec, struct status_server **out,
                        struct error *err);
/* Publishes a state. After a final one nothing changes any more. */
void status_server_set(struct status_server *s, const struct status *status);
void status_server_set_phase(struct status_server *s, enum status_phase phase);
/* FATAL with the error's sentence and hint. */
void status_server_set_fatal(struct status_server *s, const struct error *why);
/* What "running" lines say about the log server. */
void status_server_set_log2(struct status_server *s, bool has_log2);
/* True once a peer that was sent the final state has closed its connection. */
bool status_server_taken(const struct status_server *s);
void status_server_stop(struct status_server *s);

#endif
