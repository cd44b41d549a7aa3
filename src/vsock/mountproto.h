/*
 * The link of a host mount: what enclave and host say to each other before and around the FUSE
 * messages (linux/fuse.h) that they pass on unchanged; a few requests are the runtime's own, with
 * the highest bit of their number set (enclave/mount_ahead.h). Replaces the JSON protocol of
 * spec/wire-protocols.md section 8 (design.md section 2: both halves ship together).
 *
 * A mount has one or more lanes, each one connection to the mount's port and, in the enclave, one
 * descriptor of /dev/fuse; the kernel wants a reply on the descriptor that gave the request, so a
 * reply comes back on its request's lane. The enclave sends a struct mount_hello on each new
 * connection and the host answers with a struct mount_welcome; with error 0 the stream then
 * carries, without any framing of ours, requests (struct fuse_in_header, len) towards the host
 * and replies (struct fuse_out_header, len) back, in any order. FORGET, BATCH_FORGET and
 * INTERRUPT have no reply. Lane 0 is first and carries FUSE_INIT; the others follow once that is
 * answered. When any lane ends, the mount is over. All integers are little-endian.
 */
#ifndef CAPSULE_VSOCK_MOUNTPROTO_H
#define CAPSULE_VSOCK_MOUNTPROTO_H

#include <stdint.h>

#define MOUNT_MAGIC       "CAPSFS1\n" /* 8 bytes, no NUL */
#define MOUNT_SESSION_LEN 16
#define MOUNT_NAME_MAX    64
#define MOUNT_LANES_MAX   8
#define MOUNT_IO_MAX      (1u << 20) /* payload of one READ or WRITE */
/*
 * Linux reads ahead this much of a file that is read in order, in place of the 128 KiB that FUSE
 * gives a mount: while the app takes what one READ brought, the next is on its way.
 */
#define MOUNT_READ_AHEAD (2 * MOUNT_IO_MAX)
/* Longest message: payload, FUSE headers and names. */
#define MOUNT_MESSAGE_MAX (MOUNT_IO_MAX + 8192u)

struct mount_hello {
    uint8_t magic[8];
    uint8_t session[MOUNT_SESSION_LEN]; /* random, the same on all lanes of a mount */
    uint32_t lane;                      /* 0 to MOUNT_LANES_MAX - 1 */
    uint32_t reserved;                  /* 0 */
    char name[MOUNT_NAME_MAX];          /* of the manifest, padded with NULs */
};

/*
 * How long one thread of either half looks for the next message before it sleeps. To wake a
 * processor that sleeps takes longer than to answer most messages, above all in a virtual machine,
 * and many come one after the other. Long enough for an fsync of a fast disk in between, and as
 * long as Linux's own idle loop polls in guests (guest_halt_poll_ns).
 */
#define MOUNT_AWAKE_NS 200000

#define MOUNT_READ_ONLY 1u /* of flags: the host serves it so; the enclave mounts it so */

struct mount_welcome {
    uint8_t magic[8];
    uint32_t error; /* errno; then the host closes */
    uint32_t flags;
    uint32_t lanes; /* that the host will take, 1 to MOUNT_LANES_MAX */
    uint32_t reserved;
};

/*
 * On the host: a bit of the byte with which capsule-shell hands a connection to the process that
 * serves it. The contents of requests may be spliced from it.
 */
#define MOUNT_LANE_SPLICES 1u

#endif
