/* Private to fuse_check.c: the operations of FUSE, and what a good reply to each looks like. */
#ifndef CAPSULE_ENCLAVE_FUSE_REPLY_H
#define CAPSULE_ENCLAVE_FUSE_REPLY_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

/* A request that waits for its reply, and what of it bounds that. */
struct fuse_asked {
    uint64_t unique;     /* 0: an empty slot */
    uint64_t limit;      /* bytes asked for or given; INIT: the flags that the kernel offers */
    int64_t deadline_ms; /* of clock_mono_ms() */
    uint32_t opcode;
};

/* "READ", or "request" for an operation that this version does not know. */
const char *fuse_op_name(uint32_t opcode);
/* False for the FORGETs. INTERRUPT, whose reply is another matter, is the caller's. */
bool fuse_reply_expected(uint32_t opcode);
/* Notes a whole request; -1 when it is too short for its operation. */
int fuse_reply_plan(struct slice request, int64_t now_ms, struct fuse_asked *out);
/* Whether a reply can have this error (0 or negative errno) and `len` bytes behind its header. */
int fuse_reply_check_length(const struct fuse_asked *asked, int32_t error, size_t len,
                            struct error *err);
/* Whether the body of a reply without error, of a length that was found right, makes sense. */
int fuse_reply_check_body(const struct fuse_asked *asked, struct slice body, struct error *err);

#endif
