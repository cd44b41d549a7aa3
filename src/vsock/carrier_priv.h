/* Private to the carrier: what the two implementations provide. */
#ifndef CAPSULE_VSOCK_CARRIER_PRIV_H
#define CAPSULE_VSOCK_CARRIER_PRIV_H

#include "vsock/carrier.h"

#include <stdatomic.h>
#include <stdbool.h>

struct event_base;
struct dispatcher;

struct carrier {
    const struct carrier_ops *ops;
    struct event_base *base;
    enum carrier_side side;
    uint32_t cid;
    bool no_half_close;
    int dir_fd;                    /* UNIX */
    int door_fd;                   /* UNIX, enclave side: given to open(), or -1 */
    _Atomic uint32_t host_cid;     /* vsock, enclave side: the address that worked, or 0 */
    struct dispatcher *dispatcher; /* UNIX, enclave side: v.sock and the ports behind it */
};

/* "CONNECT <port>" or its answer, which may come in pieces. */
struct handshake_line {
    char text[32]; /* "CONNECT 4294967295\n" is 19 bytes */
    size_t len;
};

/* One attempt to connect, driven by advance() whenever what it asked for has come true. */
struct attempt {
    uint32_t port;
    int fd;
    enum {
        ATTEMPT_START,
        ATTEMPT_CONNECTING,
        ATTEMPT_HANDSHAKE
    } stage;
    uint32_t host_cid;            /* vsock, enclave side: the address being tried */
    struct handshake_line answer; /* UNIX, host side */
};

enum attempt_want {
    ATTEMPT_READ,  /* call again when fd is readable */
    ATTEMPT_WRITE, /* call again when fd is writable */
    ATTEMPT_LATER, /* call again in a few milliseconds: the peer's queue is full */
    ATTEMPT_DONE,  /* fd is connected */
    ATTEMPT_FAILED /* *err says why */
};

struct carrier_ops {
    int (*open)(struct carrier *c, struct error *err);
    void (*close)(struct carrier *c);
    enum attempt_want (*advance)(const struct carrier *c, struct attempt *a, struct error *err);
    int (*listen)(struct carrier *c, uint32_t port, struct listener_spec *spec,
                  struct listener **out, struct error *err);
    void (*unlisten)(struct carrier *c, struct listener *l);
};

extern const struct carrier_ops carrier_vsock_ops;
extern const struct carrier_ops carrier_unix_ops;

#endif
