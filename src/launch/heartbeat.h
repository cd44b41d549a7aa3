/*
 * The launcher's half of the heartbeat (spec eif.md section 10, item 3): capsule-init connects to
 * port 9000, sends 0xB7 and reads 0xB7 back. Whoever else comes by, says something else or nothing
 * at all, delays nobody and is sent away.
 */
#ifndef CAPSULE_LAUNCH_HEARTBEAT_H
#define CAPSULE_LAUNCH_HEARTBEAT_H

#include "base/error.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEARTBEAT_PORT  9000u
#define HEARTBEAT_BYTE  0xb7
#define HEARTBEAT_PEERS 8 /* connected and silent at a time; another one replaces the oldest */
#define HEARTBEAT_FDS   (1 + HEARTBEAT_PEERS)

#define HEARTBEAT_LOCK_MS 120000 /* for others that start an enclave under the lock */
#define HEARTBEAT_PORT_MS 200000 /* for others that do so without it */

#define HEARTBEAT_VARIABLE "CAPSULE_HEARTBEAT_SECS"

struct heartbeat {
    int listen_fd;
    int lock_fd;    /* AF_VSOCK: the right to start an enclave on this machine, or -1 */
    uint32_t cid;   /* AF_VSOCK: the only one that may call; 0: everyone */
    char path[108]; /* UNIX: the socket's name, else "" */
    int peers[HEARTBEAT_PEERS];
    size_t count;
};
#define HEARTBEAT_NONE ((struct heartbeat){.listen_fd = -1, .lock_fd = -1})

/* On the UNIX carrier: v.sock_9000 in a private directory. */
int heartbeat_listen_unix(struct heartbeat *h, const char *carrier_dir, struct error *err);
/*
 * Only the right to start an enclave, a vsock port of the machine, for a launcher that leaves the
 * heartbeat's port to another program: waits up to lock_ms for others (spec/runtime.md section 3,
 * item 3), saying so. ERR_TIMEOUT then. `keep_going` (may be NULL) as in struct launch_request.
 */
int heartbeat_lock_start(struct heartbeat *h, int lock_ms, bool (*keep_going)(void *arg), void *arg,
                         struct error *err);
/*
 * That right and then the heartbeat's port, for which it waits up to port_ms: launchers that know
 * nothing of the right may have it (spec/nitro-host.md section 4).
 */
int heartbeat_listen_vsock(struct heartbeat *h, uint32_t cid, int lock_ms, int port_ms,
                           bool (*keep_going)(void *arg), void *arg, struct error *err);
/* How long to wait for it: what the environment's HEARTBEAT_VARIABLE says, else `secs`. */
int64_t heartbeat_limit_ms(uint64_t secs);
/* What to poll for: fills at most HEARTBEAT_FDS entries and returns how many. */
size_t heartbeat_poll_set(const struct heartbeat *h, struct pollfd *fds);
/* Goes through what is there, without blocking. True once a heartbeat was received and answered. */
bool heartbeat_serve(struct heartbeat *h);
/* Ends listening and all connections. Safe on HEARTBEAT_NONE. */
void heartbeat_close(struct heartbeat *h);

#endif
