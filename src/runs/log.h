/*
 * The log of a detached run: bytes as they came, in files log.0, log.1, ... of RUN_LOG_PIECE bytes
 * in the run's directory, of which the newest RUN_LOG_PIECES are kept. So the place of a byte in
 * the whole output is its file's number times RUN_LOG_PIECE plus its place in the file, and a
 * reader knows what it has missed. `log.lock` is locked (flock) while somebody writes.
 */
#ifndef CAPSULE_RUNS_LOG_H
#define CAPSULE_RUNS_LOG_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>
#include <sys/types.h>

#define RUN_LOG_PIECE  (1u << 20)
#define RUN_LOG_PIECES 8u

/*
 * Makes the lock file and takes the lock; the caller keeps the descriptor for as long as the log is
 * written, also over fork(). -1 with err.
 */
int run_log_lock(const char *dir, struct error *err);
/*
 * Writes down everything from `in` up to its end. What does not fit on the disk is counted, and a
 * line "[capsule: N bytes of log lost: REASON]" follows when there is room again.
 */
void run_log_keep(const char *dir, int in);

struct run_log {
    char *dir;
    uint64_t offset; /* in the whole output, of the next byte */
    int piece;       /* the open file, or -1 */
    uint64_t number; /* its number */
    int watch;       /* inotify, or -1 */
    bool skip_line;  /* drop what is left of a line whose beginning is gone */
    uint64_t dropped;
};
#define RUN_LOG_NONE ((struct run_log){.piece = -1, .watch = -1})

/* Opens at the oldest byte that is there. ERR_NOT_FOUND when the run has no log. */
int run_log_open(const char *dir, struct run_log *out, struct error *err);
void run_log_close(struct run_log *l);
#define AUTO_RUN_LOG CLEANUP(run_log_close)
/*
 * Reads on; 0 when there is nothing more now. Where bytes are gone because the log has outgrown its
 * bound it gives the line "[capsule: N bytes of log dropped]" instead, and goes on with the next
 * whole line. `size` is at least 128.
 */
ssize_t run_log_read(struct run_log *l, void *to, size_t size, struct error *err);
/* Is it still being written? After "no", what run_log_read() gives is the rest. */
bool run_log_grows(const struct run_log *l);
/* Waits until it may have changed, or for `ms`. */
void run_log_wait(struct run_log *l, int ms);
/* Moves to where the last `lines` lines begin. */
int run_log_seek_tail(struct run_log *l, uint64_t lines, struct error *err);

#endif
