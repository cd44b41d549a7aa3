/*
 * The first look at a FUSE request from an enclave (linux/fuse.h, protocol 7.31 and later), before
 * libfuse sees it: libfuse trusts its kernel and checks neither lengths nor the ends of names.
 */
#ifndef CAPSULE_HOSTFS_MESSAGE_H
#define CAPSULE_HOSTFS_MESSAGE_H

#include "base/slice.h"

#include <linux/fuse.h>

/* What became of a message. */
enum message_verdict {
    MESSAGE_GOOD,   /* for libfuse, which finds every field and name it looks for */
    MESSAGE_REFUSE, /* is answered with `error` alone */
    MESSAGE_DROP    /* has no answer and needs none */
};

struct message {
    enum message_verdict verdict;
    int error; /* of MESSAGE_REFUSE: an errno */
    uint32_t opcode;
    uint64_t unique;
    /* The kernel asks that set-id bits go (FUSE_HANDLE_KILLPRIV_V2); of INIT: it can ask that. */
    bool kill_suidgid;
};

/*
 * Judges one whole message: `bytes` has the length that its header states and at least a header
 * (sizeof(struct fuse_in_header)), and lies aligned to 8. With `read_only`, what would change
 * something is refused with EROFS.
 */
struct message message_check(struct slice bytes, bool read_only);

/* 0, or the errno for a name that no directory entry may have: empty, "." or "..", with "/", or
 * longer than 255 bytes. */
int message_check_name(const char *name, size_t len);

#endif
