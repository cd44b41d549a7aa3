/*
 * The HTTP/1.1 server of the Capsule API and the Aux API (spec/capsule-api.md section 2): strict
 * heads, bounded bodies, answers in order, and a table of routes. Plain loopback HTTP; everything
 * runs on the loop's thread except the work of api_run().
 */
#ifndef CAPSULE_API_SERVER_H
#define CAPSULE_API_SERVER_H

#include "base/error.h"
#include "base/pool.h"
#include "base/slice.h"

struct event_base;
struct api_request;
struct api_server;

#define API_BODY_MAX    10485760 /* after de-chunking; one more byte is 413 */
#define API_BODIES_MAX  67108864 /* request bodies in memory at a time, all connections */
#define API_DRAIN_MAX   1048576  /* read on after a 413, so that the client sees it */
#define API_PRIMARY_MAX 256      /* connections */
#define API_AUX_MAX     128
#define API_HEAD_MS     30000 /* for a head to arrive */
#define API_PROGRESS_MS 60000 /* without a byte, of a request body or of a reply */
#define API_IDLE_MS     75000 /* between requests */

struct api_route {
    const char *method;
    const char *path; /* compared byte for byte with the target's path */
    /*
     * Answers, now or later, by exactly one call of api_reply(), api_reply_json() or api_fail();
     * the request lives until then, even when the client has gone.
     */
    void (*handle)(struct api_request *req, void *arg);
};

struct api_config {
    const char *name;               /* for logs; borrowed */
    uint16_t port;                  /* on 127.0.0.1; 0: any */
    size_t max;                     /* connections; more are answered 503 and closed */
    const struct api_route *routes; /* borrowed; ends with a NULL method */
    void *arg;                      /* for handle() and decorate() */
    struct pool *pool; /* for api_run(); may be NULL. The owner watches its descriptor */
    int64_t work_ms;   /* for api_run(), queue included; 0: no limit */
    /* Called before any reply to a parsed request goes out, errors included: may add headers by
       path. May be NULL. */
    void (*decorate)(struct api_request *req, void *arg);
};

/* Binds and serves. "GET /v1/health" is built in. */
int api_server_start(struct event_base *base, const struct api_config *config,
                     struct api_server **out, struct error *err);
uint16_t api_server_port(const struct api_server *s);
/* Open connections. */
size_t api_server_open(const struct api_server *s);
/* Stops accepting and ends idle connections; requests under way are answered, then closed. */
void api_server_drain(struct api_server *s);
/* Ends everything and frees it. No request may be unanswered by its handler: end the pool first.
   NULL is fine. */
void api_server_stop(struct api_server *s);

/* ---- in handlers ---- */

const char *api_method(const struct api_request *req);
const char *api_path(const struct api_request *req);
/* The whole body. It is wiped after the reply. */
struct slice api_body(const struct api_request *req);
/* Adds a header to the reply. Both strings are copied; neither may hold control bytes. */
void api_header(struct api_request *req, const char *name, const char *value);

/* Takes the bytes of `body` (which is empty afterwards); they are wiped once sent. Both `type` and
   `body` may be NULL: a reply without a body. */
void api_reply(struct api_request *req, int status, const char *type, struct buf *body);
void api_reply_json(struct api_request *req, int status, struct buf *body);
/* The error envelope {"error":message,"code":code}, with an X-Request-Id. */
void api_fail(struct api_request *req, int status, const char *code, const char *message);

/*
 * Runs `run(data)` in the pool, then `finish(req, data)` on the loop, which answers. Without a free
 * place in the queue, or when the pool ends first, the request is answered 503 "overloaded", and
 * after config.work_ms 503 "upstream_unavailable"; `drop(data)` is called instead of `finish` then,
 * not before `run` is over. `run` must not touch the request; the bytes of api_body() stay.
 */
void api_run(struct api_request *req, void *data, void (*run)(void *data),
             void (*finish)(struct api_request *req, void *data), void (*drop)(void *data));
/* The same in another pool than config.pool. NULL, for one that has ended, refuses as a full one.
 */
void api_run_in(struct api_request *req, struct pool *pool, void *data, void (*run)(void *data),
                void (*finish)(struct api_request *req, void *data), void (*drop)(void *data));

#endif
