/*
 * Output of the app and of the runtime itself, kept in a ring and streamed on port 17001
 * (spec/wire-protocols.md section 3). The pipes are always drained, whoever reads: an app never
 * blocks on its own output.
 */
#ifndef CAPSULE_ENCLAVE_LOG_SERVER_H
#define CAPSULE_ENCLAVE_LOG_SERVER_H

#include "vsock/carrier.h"

#include <stdbool.h>

struct event_base;
struct log_server;

int log_server_start(struct event_base *base, struct carrier *carrier, struct log_server **out,
                     struct error *err);
/* Write end for the app's stdout and stderr; the server owns it. */
int log_server_app_fd(const struct log_server *s);
/*
 * Write end for the runtime's own lines. It never blocks, because the thread that writes is the one
 * that drains; a line that does not fit is lost whole.
 */
int log_server_own_fd(const struct log_server *s);
/* From now on the app's output is read and thrown away (`runtime.logs: discard`). */
void log_server_discard_app(struct log_server *s);
/* Moves everything the pipes hold at this moment into the ring. */
void log_server_drain(struct log_server *s);
/* Nothing more will come: each reader gets what is left, then the end of the stream. */
void log_server_end(struct log_server *s);
/* After log_server_end(): true when every reader has everything and has closed. */
bool log_server_done(const struct log_server *s);
/* Offset behind the newest byte, for tests and stats. */
uint64_t log_server_offset(const struct log_server *s);
void log_server_stop(struct log_server *s);

#endif
