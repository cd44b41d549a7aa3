/* What the files of the server share: a connection, its request, and the steps of its life. */
#ifndef CAPSULE_API_SERVER_PRIV_H
#define CAPSULE_API_SERVER_PRIV_H

#include "api/server.h"
#include "codec/http_head.h"
#include "vsock/listener.h"
#include "vsock/stream.h"

#include <sys/queue.h>
#include <time.h>

#define METHOD_MAX 32 /* longer ones match no route */

enum state {
    READ_HEAD,
    READ_BODY,
    HANDLE, /* the handler owns the request */
    LINGER, /* a last reply was sent; the client may read it */
};

/* A connection, and the one request that it is serving. */
struct api_request {
    LIST_ENTRY(api_request) link;
    struct api_server *server;
    struct stream *client; /* NULL when the client has gone while the handler works */
    enum state state;
    struct http_scan scan;
    char method[METHOD_MAX + 1];
    struct buf path;
    bool is_head, keep;
    bool serving; /* request_serve() is on the stack */
    bool shed;    /* past the cap: only told so */
    struct http_body framing;
    struct http_chunked chunks;
    struct buf body;
    size_t drained;     /* while lingering */
    struct buf headers; /* of the reply, from api_header() */
    char id[17];
    int64_t start_ms;
    struct work *work; /* of api_run(), until it is finished or given up */
};

struct api_server {
    struct event_base *base;
    struct api_config config;
    struct listener *listener;
    uint16_t port;
    LIST_HEAD(, api_request) requests;
    size_t open;
    size_t bodies; /* bytes of request bodies in memory */
    bool draining;
    uint64_t id_prefix, id_next;
    time_t date_of;
    char date[32]; /* of that second */
};

/* ---- server.c ---- */

/* Back to the state between two requests; the body is wiped. */
void request_forget(struct api_request *req);
/* Ends the connection, and frees the request unless its handler still has it. */
void request_close(struct api_request *req);
/*
 * What is in the output goes out, then our end of the connection. Reading on keeps the kernel from
 * throwing the reply away under a client that is still sending. Never frees.
 */
void request_linger(struct api_request *req);

/* ---- server_request.c ---- */

/* Takes bytes off the input, wiped: they may be plaintext. */
void input_discard(struct evbuffer *in, size_t len);
/* Waits for the next request. */
void request_begin(struct api_request *req);
/* Works off what has been received. The request may be gone afterwards. */
void request_serve(struct api_request *req);

/* ---- server_reply.c ---- */

/* The only way out of a request. Takes `body` (may be NULL) over. */
void reply_send(struct api_request *req, int status, const char *type, struct buf *body);
/* For what is not a request: the status alone, and the end of the connection. */
void reply_status(struct api_request *req, int status);

/* ---- server_work.c ---- */

/* The pool has had its time: the client gets its answer now, and the result nobody. */
void work_give_up(struct api_request *req);

#endif
