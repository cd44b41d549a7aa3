/*
 * The status stream (port 17000, spec/wire-protocols.md section 2): one JSON object a line. The
 * enclave tells its state; the host may ask it to stop. Both parsers take hostile bytes.
 */
#ifndef CAPSULE_VSOCK_STATUS_H
#define CAPSULE_VSOCK_STATUS_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define STATUS_LINE_MAX  1024 /* what the host accepts, newline not counted */
#define STATUS_LINE_SENT 1000 /* what the enclave keeps to */
#define STOP_LINE_MAX    256  /* what the enclave accepts from the host */
#define STOP_GRACE_MAX   600000

enum status_kind {
    STATUS_RUNNING,
    STATUS_EXITED,
    STATUS_SIGNALED,
    STATUS_FATAL
};
enum status_phase {
    PHASE_BOOTING,  /* before the services */
    PHASE_SERVICES, /* services are starting */
    PHASE_APP       /* the app has been started */
};

struct status {
    enum status_kind kind;
    enum status_phase phase;         /* RUNNING */
    bool can_stop;                   /* RUNNING: takes the stop command */
    bool has_stats;                  /* RUNNING: answers the stats command */
    bool has_log2;                   /* RUNNING: the log server takes requests (vsock/log2.h) */
    int code;                        /* EXITED */
    int signal;                      /* SIGNALED: 1 to 64 */
    bool core;                       /* SIGNALED: a core was dumped */
    char error[STATUS_LINE_MAX + 1]; /* FATAL: UTF-8, may be cut */
};

/* True for the kinds after which no other line follows. */
static inline bool status_is_final(const struct status *s)
{
    return s->kind != STATUS_RUNNING;
}
/* "booting", "services", "app". */
const char *status_phase_name(enum status_phase phase);
/* "SIGTERM"; "SIG40" for numbers without a name. `out` holds 16 bytes. */
void status_signal_name(int signal, char out[16]);

/*
 * The line with its newline. A fatal text is escaped, made valid UTF-8 and cut so that the line
 * stays within STATUS_LINE_SENT.
 */
void status_format(const struct status *s, struct buf *out);
/*
 * Reads a line without its newline: ours and the reference's, members in any order, unknown members
 * ignored, a signal as number or "SIG..." name. ERR_INVALID or ERR_LIMIT otherwise.
 */
int status_parse(struct slice line, struct status *out, struct error *err);

/*
 * What the host may ask for: {"cmd":"stop"} or {"cmd":"stats"}. The answer to the latter is one
 * line
 * {"stats":{...}} on the same connection; its members are whatever the enclave counts.
 */
enum host_command_kind {
    COMMAND_STOP,
    COMMAND_STATS
};
struct host_command {
    enum host_command_kind kind;
    bool has_grace;    /* STOP: without "grace_ms" the enclave uses its own setting */
    uint32_t grace_ms; /* at most STOP_GRACE_MAX */
};
void stop_format(uint32_t grace_ms, struct buf *out);
/* runtime.stop_grace_secs in milliseconds; what a stop command cannot say becomes the most it can.
 */
uint32_t stop_grace_of_secs(uint32_t secs);
int host_command_parse(struct slice line, struct host_command *out, struct error *err);

#endif
