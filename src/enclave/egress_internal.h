/* Inside enclave/: what the files of the egress proxy share. */
#ifndef CAPSULE_ENCLAVE_EGRESS_INTERNAL_H
#define CAPSULE_ENCLAVE_EGRESS_INTERNAL_H

#include "base/log_once.h"
#include "codec/http_head.h"
#include "enclave/egress.h"
#include "enclave/egress_dial.h"
#include "vsock/stream.h"

struct listener;
struct relay;

#define EGRESS_HEAD_MS   10000  /* from the first byte of a head to its last */
#define EGRESS_IDLE_MS   75000  /* between two requests of a client */
#define EGRESS_HALF_MS   300000 /* without a byte for a client that has ended its side */
#define EGRESS_LINGER_MS 2000   /* for the client to read a reply that ends the connection */

#define EGRESS_POOL_HOST_MAX 8 /* idle connections to one origin */
#define EGRESS_POOL_MAX      64
#define EGRESS_POOL_MS       30000

/* Idle connections to origins. */
struct egress_pool {
    struct pooled *slots[EGRESS_POOL_MAX];
    uint64_t counter;
};

/* Takes a connection over; it is closed when the origin says anything, or after a while. */
void egress_pool_put(struct egress_pool *pool, struct stream *up, const struct policy_target *to);
/* An idle connection to that origin, or NULL. The caller owns it and sets its ops. */
struct stream *egress_pool_get(struct egress_pool *pool, const struct policy_target *to);
void egress_pool_clear(struct egress_pool *pool);

struct enclave_egress {
    struct event_base *base;
    const struct policy *policy;
    struct carrier *carrier;
    struct listener *listener;
    uint16_t port;
    bool draining;
    struct egress_conn *conns;
    struct egress_pool pool;
    struct enclave_egress_stats stats;
    struct log_once refusals;
};

enum conn_state {
    CONN_HEAD,     /* waiting for a request */
    CONN_DIAL,     /* waiting for the host */
    CONN_EXCHANGE, /* a plain HTTP request is under way */
    CONN_HANDOVER, /* what is buffered goes out, then the relay takes both sides */
    CONN_TUNNEL,   /* the relay has both sides */
    CONN_LINGER,   /* a last reply was sent; the client may read it */
};

/* What must be remembered of a plain HTTP request and its response. */
struct exchange {
    struct buf head;    /* to the origin; kept for one more try */
    bool connect;       /* CONNECT: no head, a tunnel instead */
    bool is_head;       /* the response has no body */
    bool retryable;     /* idempotent and without a body */
    bool reused;        /* sent over a pooled connection */
    bool upgrade;       /* the client offers another protocol */
    bool client_is_1_0; /* no chunks, no interim responses */
    bool keep_client;   /* the client's connection may carry on */
    struct http_body request_body;
    struct http_chunked request_chunks;
    uint64_t request_left; /* LENGTH */
    bool request_done;
    unsigned interims;
    struct http_scan scan; /* of the response head */
    bool response_begun;   /* the final head was passed on */
    bool keep_up;          /* the origin's connection may carry on */
    bool chunk_response;   /* we chunk what the client gets */
    struct http_body response_body;
    struct http_chunked response_chunks;
    uint64_t response_left;
};

struct egress_conn {
    struct enclave_egress *e;
    struct egress_conn *prev, *next;
    enum conn_state state;
    struct stream *client; /* NULL once the relay has it */
    struct stream *up;
    struct egress_dial *dial;
    struct relay *relay;
    struct http_scan scan;
    struct policy_target target;
    struct exchange x;
};

/* ---- egress.c ---- */

/* Closes both sides and frees the connection; `reset`: the client must see that it ended badly. */
void egress_conn_close(struct egress_conn *c, bool reset);
/* Serves what the client's input holds, when it is time for a request. */
void egress_conn_serve(struct egress_conn *c);
/* A reply of our own. Afterwards the connection carries on when x.keep_client and the request has
   no body left, else it lingers. */
void egress_conn_reply(struct egress_conn *c, int status, const char *reason, const char *message);
/* What is in the output goes out, then the connection ends. */
void egress_conn_linger(struct egress_conn *c);
/* The connection waits for its next request. */
void egress_conn_next(struct egress_conn *c);
/* Gets a connection to c->target, from the pool when that is safe. */
void egress_conn_dial(struct egress_conn *c);
/* Both sides go to the relay as soon as nothing is buffered for them. */
void egress_conn_handover(struct egress_conn *c);
extern const struct stream_ops egress_client_ops;

/* ---- egress_exchange.c ---- */

extern const struct stream_ops egress_up_ops;
/* Notes the request and writes its head for the origin into x.head. `t` is absolute. */
void egress_exchange_prepare(struct egress_conn *c, const struct http_head *head,
                             const struct http_target *t, const struct http_body *body);
/* c->up has just become usable. */
void egress_exchange_begin(struct egress_conn *c);
/* The client sends no more. May free `c`. */
void egress_exchange_client_ended(struct egress_conn *c);
/* Moves body bytes as far as both sides allow. May free `c`. */
void egress_exchange_pump_request(struct egress_conn *c);
void egress_exchange_pump_response(struct egress_conn *c);
void egress_exchange_free(struct exchange *x);

#endif
