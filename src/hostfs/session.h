/*
 * One served directory: answers FUSE requests with system calls below it, through libfuse's
 * low-level API (libfuse 3.14). Where requests come from and answers go to is the caller's.
 *
 * The process must have the directory /proc/self/fd as its working directory, umask 0, SIGXFSZ
 * ignored, and should see no more files than it serves (confine.h).
 */
#ifndef CAPSULE_HOSTFS_SESSION_H
#define CAPSULE_HOSTFS_SESSION_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct hostfs;

struct hostfs_config {
    int root_fd; /* O_PATH, of the directory; taken over on success */
    bool read_only;
    bool set_owner;     /* what is made belongs to the caller in the enclave, not to us */
    uint32_t files_max; /* descriptors that may be in use for nodes and open files */
};

/* There is one in a process: libfuse's callbacks find it without an argument of their own. */
struct hostfs *hostfs_new(const struct hostfs_config *config, struct error *err);
void hostfs_free(struct hostfs *fs);

/* A request at work; the caller fills all up to `space`. The pipe is empty but for `piped`. */
struct hostfs_request {
    /* Sends an answer as a whole; 0 or -1. Called at most once, from within hostfs_answer(). */
    int (*send)(void *arg, const struct iovec *iov, int count);
    /* To be called before what may take as long as a disk does; once is enough. */
    void (*may_wait)(void *arg);
    void *arg;
    /* As `send`, of an answer's header and the `len` bytes that are in `pipe`. */
    int (*send_piped)(void *arg, const void *header, size_t header_len, size_t len);
    int pipe[2];    /* for what an answer holds, or a WRITE brings; -1: none */
    size_t piped;   /* bytes of the message's end that are in the pipe instead; 0 when answered */
    uint8_t *space; /* MOUNT_IO_MAX bytes, for the same */
    uint64_t unique;
    uint32_t opcode;
    bool kill_suidgid;
};

/*
 * Answers one message: `len` bytes at an address aligned to 8, at least a struct fuse_in_header,
 * whose `len` says the same; `piped` of a WRITE alone. May be called from several threads at once.
 */
void hostfs_answer(struct hostfs *fs, void *message, size_t len, struct hostfs_request *request);

/* Makes everything durable that was written (syncfs). */
int hostfs_sync(struct hostfs *fs, struct error *err);

#endif
