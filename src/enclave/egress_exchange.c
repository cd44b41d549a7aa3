/*
 * One plain HTTP request through the proxy: heads are rewritten, bodies stream. Both directions
 * stop when the other side holds STREAM_HIGH bytes.
 */
#include "enclave/egress_internal.h"

#include <errno.h>

#define HEAD_ROOM    (HTTP_HEAD_MAX + 1024)
#define INTERIMS_MAX 16 /* 1xx answers to one request */

void egress_exchange_free(struct exchange *x)
{
    buf_free(&x->head);
    *x = (struct exchange){0};
}

/* ---- heads ---- */

static void put(struct buf *b, const void *ptr, size_t len)
{
    /* The bound is a head's and some; a head that does not fit was refused before. */
    if (buf_append(b, ptr, len) < 0)
        abort();
}

static void put_slice(struct buf *b, struct slice s)
{
    put(b, s.ptr, s.len);
}

static void put_str(struct buf *b, const char *s)
{
    put(b, s, strlen(s));
}

static void put_header(struct buf *b, const struct http_header *h)
{
    put_slice(b, h->name);
    put_str(b, ": ");
    put_slice(b, h->value);
    put_str(b, "\r\n");
}

static void put_framing(struct buf *b, const struct http_body *body)
{
    if (body->kind == HTTP_BODY_CHUNKED)
        put_str(b, "Transfer-Encoding: chunked\r\n");
    else if (body->kind == HTTP_BODY_LENGTH &&
             buf_printf(b, "Content-Length: %llu\r\n", (unsigned long long)body->length) < 0)
        abort();
}

/* End-to-end fields, without those that we write ourselves. */
static void put_headers(struct buf *b, const struct http_head *head, bool request)
{
    for (size_t i = 0; i < head->header_count; i++) {
        const struct http_header *h = &head->headers[i];

        if (http_is_hop_by_hop(head, h->name) ||
            slice_equal_str_nocase(h->name, "content-length") ||
            (request && slice_equal_str_nocase(h->name, "host")))
            continue;
        put_header(b, h);
    }
}

static void put_upgrade(struct buf *b, const struct http_head *head)
{
    const struct http_header *h = http_find(head, "upgrade");

    if (!h)
        return;
    put_str(b, "Connection: Upgrade\r\n");
    put_header(b, h);
}

static void put_target(struct buf *b, const struct http_head *head, const struct http_target *t)
{
    put_slice(b, head->method);
    put_str(b, " ");
    if (t->path.len == 0 && t->query.len == 0 && slice_equal_str(head->method, "OPTIONS"))
        put_str(b, "*");
    else if (t->path.len == 0)
        put_str(b, "/");
    put_slice(b, t->path);
    put_slice(b, t->query);
    put_str(b, " HTTP/1.1\r\n");
}

static void put_host(struct buf *b, const struct policy_target *target, const struct http_target *t)
{
    bool v6 = target->is_addr && target->addr.family == 6;

    put_str(b, v6 ? "Host: [" : "Host: ");
    put_str(b, target->host);
    put_str(b, v6 ? "]" : "");
    if (t->port_text.len) {
        put_str(b, ":");
        put_slice(b, t->port_text);
    }
    put_str(b, "\r\n");
}

static bool is_idempotent(struct slice method)
{
    static const char *const methods[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"};

    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (slice_equal_str(method, methods[i]))
            return true;
    return false;
}

void egress_exchange_prepare(struct egress_conn *c, const struct http_head *head,
                             const struct http_target *t, const struct http_body *body)
{
    struct exchange *x = &c->x;

    x->request_body = *body;
    x->request_left = body->kind == HTTP_BODY_LENGTH ? body->length : 0;
    x->request_done =
        body->kind == HTTP_BODY_NONE || (body->kind == HTTP_BODY_LENGTH && body->length == 0);
    x->client_is_1_0 = head->minor == 0;
    x->upgrade = !x->client_is_1_0 && x->request_done && http_find(head, "upgrade") &&
                 http_has_token(head, "connection", "upgrade");
    /* Without a body to replay, and harmless twice: only such requests meet a connection that the
       origin may just be closing. */
    x->retryable = x->request_done && !x->upgrade && is_idempotent(head->method);
    x->head = BUF(HEAD_ROOM);
    put_target(&x->head, head, t);
    put_host(&x->head, &c->target, t);
    put_headers(&x->head, head, true);
    if (x->upgrade)
        put_upgrade(&x->head, head);
    put_framing(&x->head, body);
    put_str(&x->head, "\r\n");
}

/* A client that has gone altogether looks like one that waits for its answer. */
static void limit_half_closed(struct egress_conn *c)
{
    if (stream_at_end(c->client))
        stream_set_timeout(c->client, EGRESS_HALF_MS);
}

void egress_exchange_client_ended(struct egress_conn *c)
{
    limit_half_closed(c);
    egress_exchange_pump_request(c);
}

void egress_exchange_begin(struct egress_conn *c)
{
    c->state = CONN_EXCHANGE;
    limit_half_closed(c);
    c->x.scan = (struct http_scan){0};
    stream_write(c->up, c->x.head.ptr, c->x.head.len);
    stream_read(c->up, true);
    egress_exchange_pump_request(c);
}

/* ---- ends ---- */

static void bad_gateway(struct egress_conn *c, const char *message)
{
    stream_free(c->up);
    c->up = NULL;
    c->e->stats.failed++;
    egress_conn_reply(c, 502, "bad-response", message);
    egress_conn_serve(c);
}

/* The origin's connection broke, or ended where it must not. */
static void lost_origin(struct egress_conn *c)
{
    if (c->x.response_begun) {
        /* The client must notice that what it has is not everything. */
        egress_conn_close(c, true);
        return;
    }
    if (c->x.reused && evbuffer_get_length(stream_in(c->up)) == 0) {
        stream_free(c->up);
        c->up = NULL;
        egress_conn_dial(c);
        return;
    }
    bad_gateway(c, "the origin closed the connection without a complete answer");
}

static void finish_response(struct egress_conn *c)
{
    struct exchange *x = &c->x;
    bool keep = x->keep_client && x->request_done && !c->e->draining;

    c->e->stats.requests++;
    c->e->stats.reused += x->reused;
    if (x->keep_up && x->request_done && !stream_at_end(c->up) && !c->e->draining &&
        evbuffer_get_length(stream_in(c->up)) == 0 && evbuffer_get_length(stream_out(c->up)) == 0)
        egress_pool_put(&c->e->pool, c->up, &c->target);
    else
        stream_free(c->up);
    c->up = NULL;
    if (!keep) {
        egress_conn_linger(c);
        return;
    }
    egress_conn_next(c);
    egress_conn_serve(c);
}

/* ---- the request's body ---- */

static void move(struct evbuffer *from, struct evbuffer *to, uint64_t max, uint64_t *moved)
{
    size_t len = evbuffer_get_length(from);

    if (len > max)
        len = (size_t)max;
    if (len == evbuffer_get_length(from))
        evbuffer_add_buffer(to, from);
    else
        evbuffer_remove_buffer(from, to, len);
    *moved = len;
}

/*
 * Reads chunk framing from the front of `in`. DATA: c->left bytes of body are next (some of them
 * are there).
 */
static enum http_chunk_result unframe(struct http_chunked *chunks, struct evbuffer *in)
{
    for (;;) {
        size_t len = evbuffer_get_contiguous_space(in);
        struct slice s, rest;
        enum http_chunk_result r;

        s = rest = slice_of(len ? evbuffer_pullup(in, (ev_ssize_t)len) : NULL, len);
        r = http_chunked_next(chunks, &rest);
        evbuffer_drain(in, s.len - rest.len);
        if (r != HTTP_CHUNK_MORE || evbuffer_get_length(in) == 0)
            return r;
    }
}

static void put_chunk(struct evbuffer *from, struct evbuffer *to, uint64_t max, uint64_t *moved)
{
    size_t len = evbuffer_get_length(from) < max ? evbuffer_get_length(from) : (size_t)max;
    char line[24];

    evbuffer_add(to, line, http_chunk_line(len, line));
    move(from, to, len, moved);
    evbuffer_add(to, "\r\n", 2);
}

/* Moves a body from one side to the other, decoding and encoding chunks. Returns 1 when it is
   complete, 0 to be called again, -1 when its framing is broken. */
static int move_body(const struct http_body *body, struct http_chunked *chunks, uint64_t *left,
                     bool encode, struct evbuffer *from, struct evbuffer *to)
{
    uint64_t moved;

    while (evbuffer_get_length(to) < STREAM_HIGH) {
        if (body->kind == HTTP_BODY_LENGTH) {
            move(from, to, *left, &moved);
            *left -= moved;
            return *left == 0;
        }
        if (body->kind == HTTP_BODY_CHUNKED) {
            enum http_chunk_result r = unframe(chunks, from);

            if (r == HTTP_CHUNK_END && encode)
                evbuffer_add(to, "0\r\n\r\n", 5);
            if (r != HTTP_CHUNK_DATA)
                return r == HTTP_CHUNK_END ? 1 : r == HTTP_CHUNK_BAD ? -1 : 0;
        }
        if (evbuffer_get_length(from) == 0)
            return 0;
        *left = body->kind == HTTP_BODY_CHUNKED ? chunks->left : UINT64_MAX;
        if (encode)
            put_chunk(from, to, *left, &moved);
        else
            move(from, to, *left, &moved);
        if (body->kind == HTTP_BODY_CHUNKED)
            http_chunked_take(chunks, moved);
    }
    return 0;
}

void egress_exchange_pump_request(struct egress_conn *c)
{
    struct exchange *x = &c->x;
    int rc;

    if (!x->request_done) {
        rc = move_body(&x->request_body, &x->request_chunks, &x->request_left, true,
                       stream_in(c->client), stream_out(c->up));
        if (rc < 0 && !x->response_begun) {
            stream_abort(c->up);
            c->up = NULL;
            c->e->stats.failed++;
            egress_conn_reply(c, 400, "bad-request",
                              "the chunks of the request body are malformed");
            return;
        }
        if (rc < 0 || (rc == 0 && stream_at_end(c->client) &&
                       evbuffer_get_length(stream_in(c->client)) == 0)) {
            egress_conn_close(c, true);
            return;
        }
        x->request_done = rc > 0;
        stream_flush(c->up);
    }
    stream_read(c->client, true);
}

/* ---- the response ---- */

static void put_response_head(struct egress_conn *c, const struct http_head *head)
{
    struct exchange *x = &c->x;
    AUTO_BUF struct buf b = BUF(HEAD_ROOM);
    struct http_body framing = x->response_body;
    const struct http_header *length = http_find(head, "content-length");

    if (buf_printf(&b, "HTTP/1.1 %03d ", head->status) < 0)
        abort();
    put_slice(&b, head->reason);
    put_str(&b, "\r\n");
    put_headers(&b, head, false);
    if (framing.kind == HTTP_BODY_UNTIL_CLOSE || framing.kind == HTTP_BODY_CHUNKED) {
        x->chunk_response = !x->client_is_1_0;
        framing.kind = x->chunk_response ? HTTP_BODY_CHUNKED : HTTP_BODY_NONE;
        x->keep_client = x->keep_client && x->chunk_response;
    }
    put_framing(&b, &framing);
    /* To HEAD, and with 304, it tells what the body would be. */
    if (framing.kind == HTTP_BODY_NONE && length && (x->is_head || head->status == 304))
        put_header(&b, length);
    if (!x->keep_client || !x->request_done || c->e->draining)
        x->keep_client = false;
    if (!x->keep_client)
        put_str(&b, "Connection: close\r\n");
    else if (x->client_is_1_0)
        put_str(&b, "Connection: keep-alive\r\n");
    put_str(&b, "\r\n");
    evbuffer_add(stream_out(c->client), b.ptr, b.len);
}

/* 100 and its like: passed on to clients that know them. */
static void put_interim_head(struct egress_conn *c, const struct http_head *head)
{
    AUTO_BUF struct buf b = BUF(HEAD_ROOM);

    if (c->x.client_is_1_0)
        return;
    if (buf_printf(&b, "HTTP/1.1 %03d ", head->status) < 0)
        abort();
    put_slice(&b, head->reason);
    put_str(&b, "\r\n");
    put_headers(&b, head, false);
    if (head->status == 101)
        put_upgrade(&b, head);
    put_str(&b, "\r\n");
    evbuffer_add(stream_out(c->client), b.ptr, b.len);
    stream_flush(c->client);
}

static void note_framing(struct egress_conn *c, const struct http_head *head)
{
    struct exchange *x = &c->x;

    x->response_begun = true;
    x->response_left = x->response_body.kind == HTTP_BODY_LENGTH ? x->response_body.length : 0;
    x->keep_up = http_keep_alive(head) && x->response_body.kind != HTTP_BODY_UNTIL_CLOSE;
    put_response_head(c, head);
    buf_free(&x->head);
}

/* Returns 1 when the final head was passed on, 0 when more bytes are needed, -1 when the connection
   has gone another way. */
static int take_response_head(struct egress_conn *c)
{
    struct exchange *x = &c->x;
    struct http_head head;
    struct error err;

    for (;;) {
        struct slice in = stream_peek(c->up, HTTP_HEAD_MAX);
        enum http_scan_result r = http_scan(&x->scan, in);
        size_t len = x->scan.pos;

        if (r == HTTP_SCAN_MORE)
            return 0;
        if (r != HTTP_SCAN_DONE)
            http_scan_status(r, &err);
        if (r != HTTP_SCAN_DONE || http_response_parse(slice_of(in.ptr, len), &head, &err) < 0 ||
            http_response_body(&head, slice_str(x->is_head ? "HEAD" : "GET"), &x->response_body,
                               &err) < 0) {
            error_wrap(&err, "the origin's answer is not HTTP");
            bad_gateway(c, err.msg);
            return -1;
        }
        x->scan = (struct http_scan){0};
        if (head.status == 101) {
            if (!x->upgrade) {
                bad_gateway(c, "the origin switched protocols without being asked");
                return -1;
            }
            put_interim_head(c, &head);
            evbuffer_drain(stream_in(c->up), len);
            egress_conn_handover(c);
            return -1;
        }
        if (head.status >= 200) {
            note_framing(c, &head);
        } else if (++x->interims > INTERIMS_MAX) {
            bad_gateway(c, "the origin sends interim answers without end");
            return -1;
        } else {
            put_interim_head(c, &head);
        }
        evbuffer_drain(stream_in(c->up), len);
        if (x->response_begun)
            return 1;
    }
}

void egress_exchange_pump_response(struct egress_conn *c)
{
    struct exchange *x = &c->x;
    struct evbuffer *in = stream_in(c->up), *out = stream_out(c->client);
    int rc;

    if (!x->response_begun) {
        rc = take_response_head(c);
        if (rc == 0 && stream_at_end(c->up))
            lost_origin(c);
        if (rc <= 0)
            return;
    }
    rc = x->response_body.kind == HTTP_BODY_NONE
             ? 1
             : move_body(&x->response_body, &x->response_chunks, &x->response_left,
                         x->chunk_response, in, out);
    if (rc == 0 && stream_at_end(c->up) && evbuffer_get_length(in) == 0) {
        if (x->response_body.kind != HTTP_BODY_UNTIL_CLOSE)
            rc = -1;
        else if (x->chunk_response)
            evbuffer_add(out, "0\r\n\r\n", 5);
        rc = rc < 0 ? rc : 1;
    }
    if (rc < 0) {
        egress_conn_close(c, true);
        return;
    }
    stream_flush(c->client);
    limit_half_closed(c);
    if (rc > 0)
        finish_response(c);
    else
        stream_read(c->up, true);
}

/* ---- events of the origin's side ---- */

static void up_readable(void *arg)
{
    struct egress_conn *c = arg;

    if (c->state == CONN_EXCHANGE)
        egress_exchange_pump_response(c);
}

static void up_drained(void *arg)
{
    struct egress_conn *c = arg;

    if (c->state == CONN_EXCHANGE)
        egress_exchange_pump_request(c);
    else if (c->state == CONN_HANDOVER)
        egress_conn_handover(c);
}

static void up_ended(void *arg, int sys)
{
    struct egress_conn *c = arg;

    if (c->state != CONN_EXCHANGE)
        egress_conn_close(c, true);
    else if (sys)
        lost_origin(c);
    else
        egress_exchange_pump_response(c);
}

static void up_timeout(void *arg)
{
    (void)arg;
}

const struct stream_ops egress_up_ops = {
    .readable = up_readable, .drained = up_drained, .ended = up_ended, .timeout = up_timeout};
