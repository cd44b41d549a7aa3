#include "api/server.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "codec/http_head.h"
#include "codec/json.h"
#include "vsock/listener.h"
#include "vsock/stream.h"

#include <stdio.h>
#include <sys/queue.h>
#include <sys/random.h>

#define LINGER_MS  2000
#define SHED_MAX   64   /* connections past the cap that are being told so */
#define METHOD_MAX 32   /* longer ones match no route */
#define COPY_MAX   1024 /* larger replies are sent from where they are */

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
    bool serving; /* serve() is on the stack */
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

/* What a handler has the pool do. It outlives a request whose time ran out. */
struct work {
    struct pool_job job;
    struct api_server *server;
    struct api_request *req; /* NULL: answered without it */
    struct buf body;         /* then the request's body, which run() may still read */
    void *data;
    void (*run)(void *data);
    void (*finish)(struct api_request *req, void *data);
    void (*drop)(void *data);
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

static const struct stream_ops client_ops;

/* ---- input, which may hold plaintext: it is wiped as it goes ---- */

static void discard(struct evbuffer *in, size_t len)
{
    struct evbuffer_iovec part;

    while (len > 0 && evbuffer_get_length(in) > 0 && evbuffer_peek(in, -1, NULL, &part, 1) > 0) {
        size_t now = part.iov_len < len ? part.iov_len : len;

        mem_wipe(part.iov_base, now);
        evbuffer_drain(in, now);
        len -= now;
    }
}

/* Puts all bytes into one piece. evbuffer_pullup() would leave them behind where they were. */
static void gather(struct evbuffer *in)
{
    size_t len = evbuffer_get_length(in);
    struct evbuffer *whole = evbuffer_new();
    struct evbuffer_iovec space;

    if (!whole || evbuffer_reserve_space(whole, (ev_ssize_t)len, &space, 1) != 1)
        abort(); /* out of memory */
    evbuffer_copyout(in, space.iov_base, len);
    space.iov_len = len;
    evbuffer_commit_space(whole, &space, 1);
    discard(in, len);
    evbuffer_add_buffer(in, whole);
    evbuffer_free(whole);
}

static struct slice peek_head(struct api_request *req)
{
    struct evbuffer *in = stream_in(req->client);
    size_t len = evbuffer_get_length(in);

    len = len < HTTP_HEAD_MAX ? len : HTTP_HEAD_MAX;
    if (evbuffer_get_contiguous_space(in) < len)
        gather(in);
    return stream_peek(req->client, len);
}

/* ---- life of a connection ---- */

static void forget_request(struct api_request *req)
{
    req->server->bodies -= req->body.len;
    buf_free(&req->body);
    buf_free(&req->headers);
    buf_free(&req->path);
    req->body = BUF_SECRET(API_BODY_MAX);
    req->headers = BUF(4096);
    req->path = BUF(HTTP_HEAD_MAX);
    req->scan = (struct http_scan){0};
    req->chunks = (struct http_chunked){0};
    req->method[0] = '\0';
    req->is_head = req->keep = false;
    req->id[0] = '\0';
}

static void close_connection(struct api_request *req)
{
    struct api_server *s = req->server;

    if (req->client) {
        discard(stream_in(req->client), SIZE_MAX);
        stream_free(req->client);
        req->client = NULL;
    }
    /* The handler still has it; its reply will come here again. */
    if (req->state == HANDLE)
        return;
    forget_request(req);
    LIST_REMOVE(req, link);
    s->open -= !req->shed;
    if (s->listener)
        listener_done(s->listener);
    free(req);
}

/*
 * What is in the output goes out, then our end of the connection. Reading on keeps the kernel from
 * throwing the reply away under a client that is still sending. Never frees.
 */
static void linger(struct api_request *req)
{
    struct evbuffer *in = stream_in(req->client);

    forget_request(req);
    req->state = LINGER;
    req->drained += evbuffer_get_length(in);
    discard(in, SIZE_MAX);
    stream_read(req->client, true);
    if (evbuffer_get_length(stream_out(req->client)) > 0) {
        stream_set_timeout(req->client, API_PROGRESS_MS);
        return;
    }
    stream_shutdown(req->client);
    stream_set_timeout(req->client, stream_at_end(req->client) ? 1 : LINGER_MS);
}

/* ---- replies ---- */

static void new_id(struct api_request *req)
{
    struct api_server *s = req->server;

    snprintf(req->id, sizeof(req->id), "%08x%08x", (unsigned)s->id_prefix, (unsigned)s->id_next++);
}

static void wipe_sent(const void *data, size_t len, void *arg)
{
    (void)data;
    mem_wipe(arg, len);
    free(arg);
}

/* The text of now, made once a second. */
static const char *date_text(struct api_server *s)
{
    time_t now = (time_t)(clock_real_ns() / 1000000000);

    if (now != s->date_of) {
        s->date_of = now;
        http_date(now, s->date);
    }
    return s->date;
}

static void put_reply(struct api_request *req, int status, const char *type, struct buf *body)
{
    static const char keep_alive[] = "Connection: keep-alive\r\n\r\n";
    static const char close[] = "Connection: close\r\n\r\n";
    struct evbuffer *out = stream_out(req->client);
    bool has_body = body->len && !req->is_head && status != 204;

    evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\n%s%s%s", status, http_reason(status),
                        date_text(req->server), type ? "Content-Type: " : "", type ? type : "",
                        type ? "\r\n" : "");
    if (status != 204)
        evbuffer_add_printf(out, "Content-Length: %zu\r\n", body->len);
    if (req->headers.len)
        evbuffer_add(out, req->headers.ptr, req->headers.len);
    if (status >= 400 && req->id[0])
        evbuffer_add_printf(out, "X-Request-Id: %s\r\n", req->id);
    evbuffer_add(out, req->keep ? keep_alive : close,
                 req->keep ? sizeof(keep_alive) - 1 : sizeof(close) - 1);
    if (has_body && (body->len > COPY_MAX || body->secret)) {
        evbuffer_add_reference(out, body->ptr, body->len, wipe_sent, body->ptr);
        *body = BUF(body->max);
    } else {
        if (has_body)
            evbuffer_add(out, body->ptr, body->len);
        buf_free(body);
    }
}

static void serve(struct api_request *req);
static void begin_wait(struct api_request *req);

/* The only way out of a request. */
static void send_reply(struct api_request *req, int status, const char *type, struct buf *body)
{
    struct api_server *s = req->server;
    struct buf none = {0};

    if (!body)
        body = &none;
    req->keep = req->keep && !s->draining;
    if (req->path.len && s->config.decorate)
        s->config.decorate(req, s->config.arg);
    if (log_enabled(LOG_DEBUG))
        log_debug(s->config.name, "request", kv_str("method", req->method),
                  kv_str("path", buf_cstr(&req->path)), kv_int("status", status),
                  kv_int("ms", clock_mono_ms() - req->start_ms), kv_str("id", req->id));
    if (!req->client) {
        /* The client went while the handler worked. */
        buf_free(body);
        req->state = READ_HEAD;
        close_connection(req);
        return;
    }
    put_reply(req, status, type, body);
    stream_flush(req->client);
    if (!req->keep) {
        linger(req);
        return;
    }
    forget_request(req);
    begin_wait(req);
    serve(req);
}

static void fail(struct api_request *req, int status, const char *code, const char *message)
{
    struct buf body = BUF(65536);
    struct json_writer w = {.out = &body};

    if (!req->id[0])
        new_id(req);
    json_put_object(&w);
    json_put_key(&w, "error");
    json_put_cstr(&w, message);
    json_put_key(&w, "code");
    json_put_cstr(&w, code);
    json_put_object_end(&w);
    send_reply(req, status, "application/json", &body);
}

/* For what is not a request: the status alone, and the end of the connection. */
static void reject_head(struct api_request *req, int status)
{
    struct buf none = BUF(0);

    req->keep = false;
    new_id(req);
    send_reply(req, status, NULL, &none);
}

/* ---- requests ---- */

static void begin_wait(struct api_request *req)
{
    bool pending = evbuffer_get_length(stream_out(req->client)) > 0;

    req->state = READ_HEAD;
    stream_read(req->client, true);
    stream_set_timeout(req->client, pending ? API_PROGRESS_MS : API_IDLE_MS);
}

static void too_large(struct api_request *req, uint64_t received)
{
    char message[96];

    req->keep = false;
    snprintf(message, sizeof(message), "request body exceeds %d bytes (received at least %llu)",
             API_BODY_MAX, (unsigned long long)received);
    fail(req, 413, "body_too_large", message);
}

static void bad_body(struct api_request *req, const char *message)
{
    req->keep = false;
    fail(req, 400, "invalid_value", message);
}

static void health(struct api_request *req)
{
    struct buf body = BUF(64);

    if (buf_append_str(&body, "{\"ok\":true}") < 0)
        abort();
    send_reply(req, 200, "application/json", &body);
}

static const struct api_route health_route = {.method = "GET", .path = "/v1/health"};

/* The route, or NULL and the methods that the path has (none: there is no such path). */
static const struct api_route *find_route(const struct api_request *req, struct buf *allow)
{
    struct slice path = buf_slice(&req->path);
    const struct api_route *r = req->server->config.routes;

    for (bool last = false; !last; r++) {
        last = !r->method;
        if (last)
            r = &health_route;
        if (!slice_equal_str(path, r->path))
            continue;
        if (strcmp(r->method, req->method) == 0)
            return r;
        if ((allow->len && buf_append_str(allow, ", ") < 0) || buf_append_str(allow, r->method) < 0)
            break;
    }
    return NULL;
}

static void dispatch(struct api_request *req)
{
    AUTO_BUF struct buf allow = BUF(256);
    const struct api_route *route = find_route(req, &allow);

    req->state = HANDLE;
    stream_set_timeout(req->client, 0);
    if (route == &health_route) {
        health(req);
    } else if (route) {
        route->handle(req, req->server->config.arg);
    } else if (allow.len) {
        api_header(req, "Allow", buf_cstr(&allow));
        fail(req, 405, "method_not_allowed", "this path does not take that method");
    } else {
        fail(req, 404, "not_found", "there is nothing at this path");
    }
}

static bool take_bytes(struct api_request *req, uint64_t max)
{
    struct evbuffer *in = stream_in(req->client);
    struct api_server *s = req->server;
    struct evbuffer_iovec part;

    while (max > 0 && evbuffer_get_length(in) > 0 && evbuffer_peek(in, -1, NULL, &part, 1) > 0) {
        size_t len = part.iov_len < max ? part.iov_len : (size_t)max;

        if (s->bodies + len > API_BODIES_MAX) {
            req->keep = false;
            fail(req, 503, "overloaded", "too many request bodies are under way; try again");
            return false;
        }
        if (buf_append(&req->body, part.iov_base, len) < 0) {
            too_large(req, (uint64_t)req->body.len + len);
            return false;
        }
        discard(in, len);
        s->bodies += len;
        max -= len;
    }
    return true;
}

/* Returns 1 when the body is complete, 0 when more is needed, -1 when the request was answered. */
static int read_chunks(struct api_request *req)
{
    struct evbuffer *in = stream_in(req->client);

    while (evbuffer_get_length(in) > 0) {
        struct slice all = stream_peek(req->client, evbuffer_get_contiguous_space(in)), rest = all;
        enum http_chunk_result r = http_chunked_next(&req->chunks, &rest);
        size_t before = req->body.len;

        evbuffer_drain(in, all.len - rest.len);
        if (r == HTTP_CHUNK_END)
            return 1;
        if (r == HTTP_CHUNK_BAD) {
            bad_body(req, "the chunks of the request body are malformed");
            return -1;
        }
        if (r == HTTP_CHUNK_DATA && !take_bytes(req, req->chunks.left))
            return -1;
        http_chunked_take(&req->chunks, req->body.len - before);
    }
    return 0;
}

static bool read_body(struct api_request *req)
{
    size_t before = evbuffer_get_length(stream_in(req->client));
    int rc;

    if (req->framing.kind == HTTP_BODY_CHUNKED)
        rc = read_chunks(req);
    else if (take_bytes(req, req->framing.length - req->body.len))
        rc = req->body.len == req->framing.length;
    else
        rc = -1;
    if (rc < 0)
        return true;
    if (rc > 0) {
        dispatch(req);
        return true;
    }
    if (stream_at_end(req->client)) {
        bad_body(req, "the request body ends early");
        return true;
    }
    if (before > 0)
        stream_set_timeout(req->client, API_PROGRESS_MS);
    stream_read(req->client, true);
    return false;
}

/* Copies what outlives the head's bytes. */
static void note_request(struct api_request *req, const struct http_head *head,
                         const struct http_target *t)
{
    struct slice path = t->path;

    if (t->form == HTTP_ABSOLUTE && path.len == 0)
        path = slice_str("/");
    else if (t->form == HTTP_ASTERISK || t->form == HTTP_AUTHORITY)
        path = head->target;
    req->start_ms = clock_mono_ms();
    if (buf_append(&req->path, path.ptr, path.len) < 0)
        abort();
    (void)buf_cstr(&req->path);
    snprintf(req->method, sizeof(req->method), "%.*s",
             (int)(head->method.len <= METHOD_MAX ? head->method.len : 0), head->method.ptr);
    req->is_head = slice_equal_str(head->method, "HEAD");
    req->keep = http_keep_alive(head);
}

static void take_head(struct api_request *req, struct slice raw)
{
    struct http_head head;
    struct http_target t;
    struct error err;
    bool expects;
    int status;

    if (http_request_parse(raw, &head, &status, &err) < 0) {
        reject_head(req, status);
        return;
    }
    if (http_check_host(&head, &err) < 0 || http_target_parse(&head, &t, &err) < 0 ||
        http_request_body(&head, &req->framing, &err) < 0) {
        log_debug(req->server->config.name, "bad request", kv_str("why", err.msg));
        reject_head(req, 400);
        return;
    }
    note_request(req, &head, &t);
    expects = head.minor >= 1 && http_has_token(&head, "expect", "100-continue");
    evbuffer_drain(stream_in(req->client), raw.len);
    req->state = READ_BODY;
    if (req->framing.kind == HTTP_BODY_LENGTH && req->framing.length > API_BODY_MAX) {
        too_large(req, req->framing.length);
        return;
    }
    if (expects && evbuffer_get_length(stream_in(req->client)) == 0 &&
        (req->framing.kind == HTTP_BODY_CHUNKED || req->framing.length > 0))
        stream_write(req->client, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    stream_set_timeout(req->client, API_PROGRESS_MS);
}

/* True when there is more to do at once. */
static bool read_head(struct api_request *req)
{
    struct slice in = peek_head(req);
    bool first = req->scan.pos == 0;
    enum http_scan_result r = http_scan(&req->scan, in);
    struct error err;

    if (r == HTTP_SCAN_DONE) {
        take_head(req, slice_of(in.ptr, req->scan.pos));
        return true;
    }
    if (r != HTTP_SCAN_MORE) {
        reject_head(req, http_scan_status(r, &err));
        return true;
    }
    if (stream_at_end(req->client) || (in.len == 0 && req->server->draining))
        linger(req);
    else if (in.len && first)
        stream_set_timeout(req->client, API_HEAD_MS);
    return false;
}

static void serve(struct api_request *req)
{
    bool more = true;

    if (req->serving)
        return;
    req->serving = true;
    while (more && (req->state == READ_HEAD || req->state == READ_BODY)) {
        /* A client that asks and asks and does not read waits for itself. */
        if (req->state == READ_HEAD && evbuffer_get_length(stream_out(req->client)) > STREAM_HIGH)
            break;
        more = req->state == READ_HEAD ? read_head(req) : read_body(req);
    }
    req->serving = false;
}

/* ---- events of the client ---- */

static void on_readable(void *arg)
{
    struct api_request *req = arg;
    struct evbuffer *in;

    if (req->state != LINGER) {
        serve(req);
        return;
    }
    in = stream_in(req->client);
    req->drained += evbuffer_get_length(in);
    discard(in, SIZE_MAX);
    if (req->drained > API_DRAIN_MAX)
        close_connection(req);
}

static void on_drained(void *arg)
{
    struct api_request *req = arg;

    if (req->state == LINGER)
        linger(req);
    else if (req->state == READ_HEAD && req->scan.pos == 0)
        begin_wait(req);
    if (req->state == READ_HEAD)
        serve(req);
}

static void on_ended(void *arg, int sys)
{
    struct api_request *req = arg;

    if (sys || (req->state == LINGER && evbuffer_get_length(stream_out(req->client)) == 0))
        close_connection(req);
    else if (req->state != LINGER)
        serve(req);
}

/* The pool has had its time: the client gets its answer now, and the result nobody. */
static void give_up_work(struct api_request *req)
{
    struct work *w = req->work;

    w->req = NULL;
    w->body = req->body;
    req->body = BUF_SECRET(API_BODY_MAX);
    req->work = NULL;
    fail(req, 503, "upstream_unavailable", "Capsule API service unavailable");
}

static void on_timeout(void *arg)
{
    struct api_request *req = arg;
    bool begun = req->state == READ_HEAD && evbuffer_get_length(stream_in(req->client)) > 0;

    if (req->work)
        give_up_work(req);
    else if (begun || req->state == READ_BODY)
        reject_head(req, 408);
    else
        close_connection(req);
}

static const struct stream_ops client_ops = {
    .readable = on_readable, .drained = on_drained, .ended = on_ended, .timeout = on_timeout};

static void accepted(void *arg, int fd)
{
    struct api_server *s = arg;
    struct api_request *req = xcalloc(1, sizeof(*req));

    socket_tune_tcp(fd);
    req->server = s;
    req->client = stream_new(s->base, fd, &client_ops, req);
    LIST_INSERT_HEAD(&s->requests, req, link);
    forget_request(req);
    req->shed = s->open >= s->config.max;
    s->open += !req->shed;
    if (req->shed)
        fail(req, 503, "overloaded", "too many connections");
    else
        begin_wait(req);
}

/* ---- the service ---- */

int api_server_start(struct event_base *base, const struct api_config *config,
                     struct api_server **out, struct error *err)
{
    struct api_server *s;
    int fd = listener_bind_tcp("127.0.0.1", config->port, err);

    if (fd < 0)
        return error_wrap(err, "%s", config->name);
    s = xcalloc(1, sizeof(*s));
    s->base = base;
    s->config = *config;
    s->port = socket_port(fd);
    LIST_INIT(&s->requests);
    /* Only to tell requests of different runs apart. */
    if (getrandom(&s->id_prefix, sizeof(s->id_prefix), GRND_NONBLOCK) < 0)
        s->id_prefix = (uint64_t)clock_mono_ns();
    s->listener = listener_new(
        base, fd,
        &(struct listener_spec){
            .name = config->name, .max = config->max + SHED_MAX, .accepted = accepted, .arg = s});
    log_info(config->name, "listening", kv_uint("port", s->port));
    *out = s;
    return 0;
}

uint16_t api_server_port(const struct api_server *s)
{
    return s->port;
}

size_t api_server_open(const struct api_server *s)
{
    return s->open;
}

void api_server_drain(struct api_server *s)
{
    struct api_request *req, *next;

    s->draining = true;
    listener_close(s->listener);
    for (req = LIST_FIRST(&s->requests); req; req = next) {
        next = LIST_NEXT(req, link);
        if (req->state == READ_HEAD && evbuffer_get_length(stream_in(req->client)) == 0)
            linger(req);
    }
}

void api_server_stop(struct api_server *s)
{
    struct api_request *req, *next;

    if (!s)
        return;
    listener_free(s->listener);
    s->listener = NULL;
    for (req = LIST_FIRST(&s->requests); req; req = next) {
        next = LIST_NEXT(req, link);
        if (req->state == HANDLE)
            req->state = READ_HEAD;
        close_connection(req);
    }
    free(s);
}

/* ---- for handlers ---- */

const char *api_method(const struct api_request *req)
{
    return req->method;
}

const char *api_path(const struct api_request *req)
{
    return (const char *)req->path.ptr;
}

struct slice api_body(const struct api_request *req)
{
    return buf_slice(&req->body);
}

void api_header(struct api_request *req, const char *name, const char *value)
{
    if (buf_printf(&req->headers, "%s: %s\r\n", name, value) < 0)
        log_warn(req->server->config.name, "a reply header does not fit", kv_str("name", name));
}

void api_reply(struct api_request *req, int status, const char *type, struct buf *body)
{
    struct buf none = BUF(0);

    send_reply(req, status, type, body ? body : &none);
}

void api_reply_json(struct api_request *req, int status, struct buf *body)
{
    send_reply(req, status, "application/json", body);
}

void api_fail(struct api_request *req, int status, const char *code, const char *message)
{
    fail(req, status, code, message);
}

static void work_run(struct pool_job *job)
{
    struct work *w = CONTAINER_OF(job, struct work, job);

    w->run(w->data);
}

static void work_done(struct pool_job *job)
{
    struct work *w = CONTAINER_OF(job, struct work, job);
    struct api_request *req = w->req;

    if (req)
        req->work = NULL;
    if (req && !job->dropped) {
        w->finish(req, w->data);
    } else {
        w->drop(w->data);
        if (req)
            fail(req, 503, "overloaded", "the service is stopping");
    }
    w->server->bodies -= w->body.len;
    buf_free(&w->body);
    free(w);
}

void api_run_in(struct api_request *req, struct pool *pool, void *data, void (*run)(void *data),
                void (*finish)(struct api_request *req, void *data), void (*drop)(void *data))
{
    struct work *w = xcalloc(1, sizeof(*w));

    *w = (struct work){.job = {.run = work_run, .done = work_done},
                       .server = req->server,
                       .req = req,
                       .data = data,
                       .run = run,
                       .finish = finish,
                       .drop = drop};
    if (pool && pool_submit(pool, &w->job) == 0) {
        req->work = w;
        if (req->client) /* it may have gone, where one piece of work follows another */
            stream_set_timeout(req->client, req->server->config.work_ms);
        return;
    }
    free(w);
    drop(data);
    fail(req, 503, "overloaded", "too many requests are waiting; try again");
}

void api_run(struct api_request *req, void *data, void (*run)(void *data),
             void (*finish)(struct api_request *req, void *data), void (*drop)(void *data))
{
    api_run_in(req, req->server->config.pool, data, run, finish, drop);
}
