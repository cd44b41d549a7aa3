#include "api/server_priv.h"

#include "base/clock.h"
#include "base/log.h"
#include "codec/json.h"

#include <stdio.h>

#define COPY_MAX 1024 /* larger replies are sent from where they are */

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

void reply_send(struct api_request *req, int status, const char *type, struct buf *body)
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
        request_close(req);
        return;
    }
    put_reply(req, status, type, body);
    stream_flush(req->client);
    if (!req->keep) {
        request_linger(req);
        return;
    }
    request_forget(req);
    request_begin(req);
    request_serve(req);
}

void api_fail(struct api_request *req, int status, const char *code, const char *message)
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
    reply_send(req, status, "application/json", &body);
}

void reply_status(struct api_request *req, int status)
{
    struct buf none = BUF(0);

    req->keep = false;
    new_id(req);
    reply_send(req, status, NULL, &none);
}

void api_header(struct api_request *req, const char *name, const char *value)
{
    if (buf_printf(&req->headers, "%s: %s\r\n", name, value) < 0)
        log_warn(req->server->config.name, "a reply header does not fit", kv_str("name", name));
}

void api_reply(struct api_request *req, int status, const char *type, struct buf *body)
{
    struct buf none = BUF(0);

    reply_send(req, status, type, body ? body : &none);
}

void api_reply_json(struct api_request *req, int status, struct buf *body)
{
    reply_send(req, status, "application/json", body);
}
