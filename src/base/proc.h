/* Child processes: every one is reaped by who made it, watched through a pidfd. */
#ifndef CAPSULE_BASE_PROC_H
#define CAPSULE_BASE_PROC_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>
#include <sys/types.h>

struct proc {
    pid_t pid; /* 0 when there is none */
    int pidfd;
};
#define PROC_NONE ((struct proc){0, -1})

struct proc_spec {
    const char *const *argv; /* argv[0] is looked up in PATH; NULL-terminated */
    const char *const *env;  /* NULL: inherit */
    int stdin_fd;            /* descriptors for 0, 1, 2; -1 gives /dev/null */
    int stdout_fd;
    int stderr_fd;
    const int *keep_fds; /* ascending; stay open in the child under the same numbers */
    size_t keep_count;
    bool die_with_parent; /* SIGKILL when the thread that started it ends */
    int end_signal;       /* that signal then instead of SIGKILL; 0: as die_with_parent says */
    bool new_session;     /* out of reach of the terminal's signals */
    bool new_group;       /* likewise, and may still write to the terminal */
    const char *dir;      /* working directory; NULL: ours */
};

/*
 * Starts a program. Signal mask and SIGPIPE are reset in the child. A program that cannot be
 * executed is reported here, with its name and the reason.
 */
int proc_start(const struct proc_spec *spec, struct proc *out, struct error *err);
/*
 * Where PATH has a program that may be executed; a name with a slash stands for itself. The caller
 * frees it. NULL when there is none.
 */
char *proc_find(const char *program) MUST_USE;
/*
 * Waits up to timeout_ms (-1: for ever) and stores the wait status (as from waitpid). Returns 1
 * when it ended (*p is then PROC_NONE), 0 at the time-out, -1 with err.
 */
int proc_wait(struct proc *p, int timeout_ms, int *status, struct error *err);
/* Sends a signal; a process that has ended already is not an error. */
void proc_signal(const struct proc *p, int sig);
/*
 * For a fresh child that goes on in this program: default action for every signal, none blocked. A
 * handler of the event loop's would tell the parent's loop. Allocates nothing, takes no lock.
 */
void proc_reset_signals(void);
/* SIGKILL and reap, if there is one. For CLEANUP and error paths. */
void proc_kill(struct proc *p);

/*
 * Runs a program to its end with /dev/null as input. Its standard output is appended to `out` (may
 * be NULL) and what it wrote to standard error, when it fails, goes into the message. A status
 * other than 0, or more than timeout_ms, is an error.
 */
int proc_run(const char *const *argv, int timeout_ms, struct buf *out, struct error *err);
/* The same with `input`, at most PROC_INPUT_MAX bytes, as its standard input. */
#define PROC_INPUT_MAX 4096
int proc_run_input(const char *const *argv, struct slice input, int timeout_ms, struct buf *out,
                   struct error *err);

#endif
