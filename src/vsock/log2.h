/*
 * Requests on the log stream (port 17001, spec/wire-protocols.md section 3). A reader that knows
 * how far it got asks for the rest: {"offset":N}. The reply {"offset":M,"dropped":K} says where the
 * bytes that follow begin: M >= N, K = M - N. Offsets count bytes since the enclave started.
 */
#ifndef CAPSULE_VSOCK_LOG2_H
#define CAPSULE_VSOCK_LOG2_H

#include "base/error.h"
#include "base/slice.h"

#include <stdint.h>

#define LOG2_LINE_MAX 128 /* either direction, newline not counted */

void log2_format_request(uint64_t offset, struct buf *out);
/* A line without its newline; strict: exactly this member, an integer from 0 to 2^63 - 1. */
int log2_parse_request(struct slice line, uint64_t *offset, struct error *err);
void log2_format_reply(uint64_t offset, uint64_t dropped, struct buf *out);
/* Checks offset - dropped == asked. */
int log2_parse_reply(struct slice line, uint64_t asked, uint64_t *offset, uint64_t *dropped,
                     struct error *err);

#endif
