/*
 * An accept loop with a limit. When `max` connections are open it stops accepting, so that new
 * peers wait in the kernel's queue; when descriptors or memory run out it sheds one connection
 * through a spare descriptor, rests 100 ms and carries on. Nothing a peer does ends a listener.
 */
#ifndef CAPSULE_VSOCK_LISTENER_H
#define CAPSULE_VSOCK_LISTENER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct event_base;
struct listener;

struct listener_spec {
    const char *name; /* for log lines; borrowed for the listener's life */
    size_t max;       /* connections open at a time */
    /*
     * Takes over a non-blocking close-on-exec descriptor. Calls listener_done() when it ends;
     * must not free the listener from here.
     */
    void (*accepted)(void *arg, int fd);
    void *arg;
    /* May be NULL. False closes the connection before a byte is read and counts it as refused. */
    bool (*admit)(const void *admit_arg, const struct sockaddr *peer, socklen_t len);
    const void *admit_arg;
};

struct listener_stats {
    uint64_t accepted;
    uint64_t refused; /* peers that `admit` turned away */
    uint64_t shed;    /* closed at once because descriptors or memory had run out */
    size_t open;
};

/*
 * Accepts on a listening descriptor, which the listener owns from here on. With fd -1 it has none
 * and is fed by listener_offer() (how the UNIX carrier hands on a dispatched connection).
 */
struct listener *listener_new(struct event_base *base, int fd, const struct listener_spec *spec);
/* Closes the listening descriptor. Connections it gave away live on, but must not report back. */
void listener_free(struct listener *l);
/* No further connections; those open stay. The port refuses from now on. */
void listener_close(struct listener *l);
/* One accepted connection has ended. */
void listener_done(struct listener *l);
/* True when another connection may be offered. */
bool listener_has_room(const struct listener *l);
/* Hands over a connection that somebody else accepted. */
void listener_offer(struct listener *l, int fd);
struct listener_stats listener_stats_of(const struct listener *l);

/*
 * A TCP socket listening on a numeric address ("127.0.0.1", "::1"), or with NULL on every address:
 * IPv6 and IPv4 in one socket where the machine has IPv6, else IPv4 only. Port 0 takes any.
 */
int listener_bind_tcp(const char *address, uint16_t port, struct error *err);
/* Port a socket is bound to (IPv4 or IPv6), 0 when unknown. */
uint16_t socket_port(int fd);
/* TCP_NODELAY and keepalive; does nothing on other sockets. */
void socket_tune_tcp(int fd);

#endif
