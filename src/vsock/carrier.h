/*
 * The link between host and enclave. Two carriers with one face: AF_VSOCK, and UNIX sockets in a
 * directory after the Firecracker convention (design.md section 2):
 *
 *   host to enclave: connect to v.sock, send "CONNECT <port>\n", read "OK <number>\n";
 *   enclave to host: connect to v.sock_<port>, where the host listens.
 *
 * The directory is always reached through a descriptor (O_PATH is enough) and
 * /proc/self/fd, because in the sandbox it has no name; links in it are never followed, since a
 * peer that can write there could put them. Nothing above this module knows which carrier is in
 * use. All functions but carrier_dial_wait() belong to the loop's thread.
 */
#ifndef CAPSULE_VSOCK_CARRIER_H
#define CAPSULE_VSOCK_CARRIER_H

#include "base/error.h"
#include "vsock/addr.h"
#include "vsock/listener.h"

#include <stdbool.h>
#include <stdint.h>

#define CARRIER_CONNECT_MS   10000 /* until the connection stands */
#define CARRIER_HANDSHAKE_MS 5000  /* for "CONNECT" and "OK" of the UNIX carrier */

struct carrier;
struct dial;

enum carrier_kind {
    CARRIER_VSOCK,
    CARRIER_UNIX
};
enum carrier_side {
    CARRIER_HOST,
    CARRIER_ENCLAVE
};

struct carrier_config {
    enum carrier_kind kind;
    enum carrier_side side;
    uint32_t cid;       /* of the enclave; 0 on the vsock enclave side asks the vsock device */
    uint32_t host_cid;  /* vsock, enclave side: where the host answers, or 0 to find out */
    bool no_half_close; /* the link does not pass on the end of one direction alone */
    int dir_fd;         /* UNIX: the directory, owned by the carrier after success */
    /* UNIX, enclave side: v.sock as carrier_make_door() made it, owned likewise, or -1: make it. */
    int door_fd;
};

/* From here on the UNIX enclave side accepts on v.sock. */
int carrier_open(struct event_base *base, const struct carrier_config *config, struct carrier **out,
                 struct error *err);
/* Every dial and listener of the carrier must be gone. */
void carrier_free(struct carrier *c);
/*
 * On the UNIX host side: binds v.sock and listens, for an enclave that may not write to the
 * directory. Connections wait until its carrier has the descriptor, which is the caller's, or -1.
 */
int carrier_make_door(const struct carrier *c, struct error *err);
/* The enclave's CID, from which both sides compute the host's ports. */
uint32_t carrier_cid(const struct carrier *c);
/* Whether the other side sees the end of one direction while the other goes on. */
bool carrier_half_closes(const struct carrier *c);

/*
 * Starts a connection to a port of the other side. `done` is called once from the loop, never from
 * within carrier_dial(): with a connected non-blocking descriptor that the callee owns, or with -1
 * and the reason. ERR_TIMEOUT and refusals are ordinary results. The dial is gone when `done` runs.
 */
struct dial *carrier_dial(struct carrier *c, uint32_t port,
                          void (*done)(void *arg, int fd, const struct error *err), void *arg);
/* Drops an unfinished dial; `done` is not called. NULL is fine. */
void dial_cancel(struct dial *d);

/* The same for threads outside the loop: waits up to timeout_ms. Returns the descriptor or -1. */
int carrier_dial_wait(const struct carrier *c, uint32_t port, int timeout_ms, struct error *err);

/*
 * Listens on a port of this side. The host's vsock listeners serve only the enclave's CID: others
 * are closed before a byte is read and counted (spec/runtime.md section 5.5). A taken port has
 * err->sys EADDRINUSE. `spec` is copied; its admit fields are the carrier's.
 */
int carrier_listen(struct carrier *c, uint32_t port, const struct listener_spec *spec,
                   struct listener **out, struct error *err);
/* Ends a listener that carrier_listen() made; connections it gave away live on. NULL is fine. */
void carrier_unlisten(struct carrier *c, struct listener *l);

#endif
