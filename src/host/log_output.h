/*
 * A bounded way to a blocking descriptor (standard output may be a terminal, a pipe or a file
 * shared with others, so it cannot be made non-blocking): writes only what the kernel says fits.
 */
#ifndef CAPSULE_HOST_LOG_OUTPUT_H
#define CAPSULE_HOST_LOG_OUTPUT_H

#include "base/slice.h"

#include <stdbool.h>

struct event_base;
struct log_output;

/* `drained` runs whenever everything given has been written (or thrown away). */
struct log_output *log_output_new(struct event_base *base, int fd, bool json,
                                  void (*drained)(void *arg), void *arg);
/* Takes everything. Callers wait for `drained` when log_output_busy() afterwards. */
void log_output_write(struct log_output *o, struct slice bytes);
/* A line of our own between the app's; starts on a new line. */
void log_output_mark(struct log_output *o, const char *text);
/* JSON: writes an unfinished last line. */
void log_output_flush_line(struct log_output *o);
bool log_output_busy(const struct log_output *o);
void log_output_free(struct log_output *o);

#endif
