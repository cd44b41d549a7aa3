/*
 * What a host may answer to the kernel's FUSE requests (linux/fuse.h, version 7). The enclave's
 * kernel believes a file system's server more than a hostile host deserves, so every reply is held
 * against the request that it answers before the kernel sees it. One struct a lane: a reply comes
 * back on the lane of its request. Pure bookkeeping over bytes; all of a lane belongs to one
 * thread.
 *
 * What cannot be known here is left alone: node ids and handles are the host's own, and so is the
 * content of files (docs/host-mounts.md).
 */
#ifndef CAPSULE_ENCLAVE_FUSE_CHECK_H
#define CAPSULE_ENCLAVE_FUSE_CHECK_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Requests without an answer on one lane; the kernel keeps what is beyond to itself. */
#define FUSE_ASKED_MAX 4096
/* Time to answer: most things; what moves or syncs much. A lock may be waited for for ever. */
#define FUSE_ANSWER_MS      (300 * 1000)
#define FUSE_ANSWER_SLOW_MS (1800 * 1000)
#define FUSE_HEADER_LEN     16 /* of a reply */

struct fuse_asked;

struct fuse_check {
    struct fuse_asked *slots; /* a hash table of `cap`, a power of two */
    size_t cap;
    size_t count;
    uint32_t interrupts; /* asked, and not answered as few are */
    bool initialized;    /* FUSE_INIT has been answered */
};

void fuse_check_init(struct fuse_check *c);
void fuse_check_free(struct fuse_check *c);
/* True when no request may be taken from the kernel until a reply has come. */
bool fuse_check_full(const struct fuse_check *c);

/*
 * Takes note of one request of the kernel; `now_ms` is of clock_mono_ms(). ERR_INTERNAL for one
 * that makes no sense, which a kernel does not send. Of a WRITE the data is not looked at, and need
 * not be where the slice says.
 */
int fuse_check_request(struct fuse_check *c, struct slice request, int64_t now_ms,
                       struct error *err);
/*
 * The errno with which any host of ours answers this request, whatever the file, so that it need
 * not be asked; 0 when it must be. Programs and kernel ask these of most files: whether one is a
 * terminal (ioctl), and what lets it run with more rights (attributes outside of user.).
 */
int fuse_check_known_error(struct slice request);
/*
 * Looks at the first FUSE_HEADER_LEN bytes of a reply and stores its whole length, header and all,
 * which is at most MOUNT_MESSAGE_MAX. ERR_INVALID when no request of this lane can have it.
 */
int fuse_check_header(const struct fuse_check *c, struct slice header, size_t *len,
                      struct error *err);
/* The opcode of the request that waits for the reply with this number; 0: none. */
uint32_t fuse_check_opcode(const struct fuse_check *c, uint64_t unique);
/* Whether the reply with this header, which was right, has a body that nobody looks at. */
bool fuse_check_unseen(const struct fuse_check *c, struct slice header);
/*
 * Looks at a whole reply, whose header was right; a body that nobody looks at need not be there. 0:
 * the kernel may have it, and its request is answered. ERR_INVALID otherwise.
 */
int fuse_check_reply(struct fuse_check *c, struct slice reply, struct error *err);
/*
 * Walks over the requests that wait for an answer, in no order: *at is 0 at first. False at the
 * end.
 */
bool fuse_check_next(const struct fuse_check *c, size_t *at, uint64_t *unique);
/* True, with the reason in *err, when a request has been without answer for too long. */
bool fuse_check_overdue(const struct fuse_check *c, int64_t now_ms, struct error *err);

#endif
