/*
 * The contents of long WRITE requests and READ replies without a way through our memory: by
 * splice(2) from one descriptor into a pipe and from there into the other. What a decision hangs on
 * is read out of the pipe, or put into it, as bytes of ours: the head of a request, of a reply the
 * header that was checked. Belongs to one thread.
 */
#ifndef CAPSULE_ENCLAVE_MOUNT_SPLICE_H
#define CAPSULE_ENCLAVE_MOUNT_SPLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fuse_init_out; /* linux/fuse.h */

/* What is shorter costs less when it is copied. */
#define MOUNT_SPLICE_MIN (64u * 1024)

struct mount_pipe {
    int read_fd, write_fd; /* -1: there is none, and everything is copied */
    size_t payload_max;    /* of one message that fits, a power of two */
    size_t held;           /* bytes in it */
};

/*
 * A pipe for messages of MOUNT_IO_MAX or, where that takes a right that we lack (CAP_SYS_RESOURCE,
 * as in a sandbox), of half as much. When neither can be had there is none, which is no error.
 */
void mount_pipe_open(struct mount_pipe *p);
void mount_pipe_close(struct mount_pipe *p);
/*
 * Lowers what the answer to FUSE_INIT lets the kernel put into one message to what the pipe can
 * take. Nothing where there is no pipe.
 */
void mount_pipe_limit(const struct mount_pipe *p, struct fuse_init_out *init);

/*
 * Takes one request of the kernel into an empty pipe, and out of it into `out`, which has room for
 * any: all of it, or of a long WRITE the head alone, whose contents stay in the pipe; *len is the
 * whole length in either case. Returns the bytes in `out`, or -1 with errno, of which EAGAIN,
 * EINTR and ENOENT mean what they do of read(2). Where the kernel does not splice, or may have more
 * to say than the pipe takes, the pipe goes and read(2) takes its place.
 */
ssize_t mount_pipe_take(struct mount_pipe *p, int fuse_fd, uint8_t *out, size_t *len);
/* Sends what is held, or a part; as send(2) without waiting. The socket must not block. */
ssize_t mount_pipe_send(struct mount_pipe *p, int socket);

/* Puts bytes of ours in, which has to be done first. False when they do not fit. */
bool mount_pipe_put(struct mount_pipe *p, const uint8_t *bytes, size_t len);
/*
 * Takes up to `len` bytes from the socket; as recv(2) without waiting. EAGAIN also when the pipe is
 * full, as of a peer that sends its bytes one by one.
 */
ssize_t mount_pipe_receive(struct mount_pipe *p, int socket, size_t len);
/* Gives the kernel what is held as one reply; as write(2). The pipe is empty then. */
ssize_t mount_pipe_reply(struct mount_pipe *p, int fuse_fd);
/* Takes everything back into `out`, which has room for it. False on a failure, with errno. */
bool mount_pipe_drain(struct mount_pipe *p, uint8_t *out);

#endif
