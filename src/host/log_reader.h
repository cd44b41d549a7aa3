/*
 * Brings the enclave's log to standard output (port 17001): resumes by offset after a lost
 * connection, passes bytes through unchanged, and never stops because of what they are. An output
 * that takes its time slows the reading down, nothing else; one that is closed is forgotten.
 */
#ifndef CAPSULE_HOST_LOG_READER_H
#define CAPSULE_HOST_LOG_READER_H

#include "vsock/carrier.h"

#include <stdbool.h>

struct event_base;
struct log_reader;

#define LOG_IDLE_MS   2000  /* after the app's end: without a byte */
#define LOG_FINISH_MS 10000 /* after the app's end: in all */
#define LOG_SPLIT     16384 /* JSON: a longer line comes in pieces, all but the last "partial" */

struct log_reader_spec {
    struct event_base *base;
    struct carrier *carrier;
    int out_fd; /* stays the caller's and stays in blocking mode */
    /* One object a line: {"ts":...,"component":"app","message":"..."}, or "base64" for non-UTF-8.
     */
    bool json;
    void (*finished)(void *arg); /* once, after log_reader_finish() */
    void *arg;
};

struct log_reader *log_reader_start(const struct log_reader_spec *spec);
/* The app has ended: read to the end of the stream within the limits above, then `finished`. */
void log_reader_finish(struct log_reader *r);
void log_reader_stop(struct log_reader *r);

#endif
