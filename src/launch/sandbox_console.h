/* A launcher's console: what the enclave prints outside of its log server, line by line. */
#ifndef CAPSULE_LAUNCH_SANDBOX_CONSOLE_H
#define CAPSULE_LAUNCH_SANDBOX_CONSOLE_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>

#define CONSOLE_LINE_MAX 1024 /* longer lines are split */

struct console {
    /* Takes each line instead of the log; NULL: the log. */
    void (*line_done)(void *arg, const char *line);
    void *arg;
    int fd; /* reading side, non-blocking; -1: none, or ended */
    size_t len;
    char line[CONSOLE_LINE_MAX + 1];
    struct log_rate rate; /* what is printed is up to the image */
};
#define CONSOLE_NONE ((struct console){.fd = -1, .rate = {.burst = 1000}})

/* Makes the pipe and returns its writing side, which the caller closes, or -1. */
int console_open(struct console *c, struct error *err);
/* Logs what is there. False: it has ended. */
bool console_pump(struct console *c);
/* The same, and then the unfinished last line; for when all writers are gone. */
void console_drain(struct console *c);
void console_close(struct console *c);

#endif
