#include "api/server_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>

/* ---- input, which may hold plaintext: it is wiped as it goes ---- */

void input_discard(struct evbuffer *in, size_t len)
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
    input_discard(in, len);
    evbuffer_add_buffer(in, whole);
    evbuffer_free(whole);
}

static struct slice input_head(struct api_request *req)
{
    struct evbuffer *in = stream_in(req->client);
    size_t len = evbuffer_get_length(in);

    len = len < HTTP_HEAD_MAX ? len : HTTP_HEAD_MAX;
    if (evbuffer_get_contiguous_space(in) < len)
        gather(in);
    return stream_peek(req->client, len);
}

/* ---- requests ---- */

void request_begin(struct api_request *req)
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
    api_fail(req, 413, "body_too_large", message);
}

static void bad_body(struct api_request *req, const char *message)
{
    req->keep = false;
    api_fail(req, 400, "invalid_value", message);
}

static void health(struct api_request *req)
{
    struct buf body = BUF(64);

    if (buf_append_str(&body, "{\"ok\":true}") < 0)
        abort();
    reply_send(req, 200, "application/json", &body);
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
        api_fail(req, 405, "method_not_allowed", "this path does not take that method");
    } else {
        api_fail(req, 404, "not_found", "there is nothing at this path");
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
            api_fail(req, 503, "overloaded", "too many request bodies are under way; try again");
            return false;
        }
        if (buf_append(&req->body, part.iov_base, len) < 0) {
            too_large(req, (uint64_t)req->body.len + len);
            return false;
        }
        input_discard(in, len);
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
        reply_status(req, status);
        return;
    }
    if (http_check_host(&head, &err) < 0 || http_target_parse(&head, &t, &err) < 0 ||
        http_request_body(&head, &req->framing, &err) < 0) {
        log_debug(req->server->config.name, "bad request", kv_str("why", err.msg));
        reply_status(req, 400);
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
    struct slice in = input_head(req);
    bool first = req->scan.pos == 0;
    enum http_scan_result r = http_scan(&req->scan, in);
    struct error err;

    if (r == HTTP_SCAN_DONE) {
        take_head(req, slice_of(in.ptr, req->scan.pos));
        return true;
    }
    if (r != HTTP_SCAN_MORE) {
        reply_status(req, http_scan_status(r, &err));
        return true;
    }
    if (stream_at_end(req->client) || (in.len == 0 && req->server->draining))
        request_linger(req);
    else if (in.len && first)
        stream_set_timeout(req->client, API_HEAD_MS);
    return false;
}

void request_serve(struct api_request *req)
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
