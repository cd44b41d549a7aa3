#include "api/server_priv.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

#include <sys/random.h>

#define LINGER_MS 2000
#define SHED_MAX  64 /* connections past the cap that are being told so */

/* ---- life of a connection ---- */

void request_forget(struct api_request *req)
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

void request_close(struct api_request *req)
{
    struct api_server *s = req->server;

    if (req->client) {
        input_discard(stream_in(req->client), SIZE_MAX);
        stream_free(req->client);
        req->client = NULL;
    }
    /* The handler still has it; its reply will come here again. */
    if (req->state == HANDLE)
        return;
    request_forget(req);
    LIST_REMOVE(req, link);
    s->open -= !req->shed;
    if (s->listener)
        listener_done(s->listener);
    free(req);
}

void request_linger(struct api_request *req)
{
    struct evbuffer *in = stream_in(req->client);

    request_forget(req);
    req->state = LINGER;
    req->drained += evbuffer_get_length(in);
    input_discard(in, SIZE_MAX);
    stream_read(req->client, true);
    if (evbuffer_get_length(stream_out(req->client)) > 0) {
        stream_set_timeout(req->client, API_PROGRESS_MS);
        return;
    }
    stream_shutdown(req->client);
    stream_set_timeout(req->client, stream_at_end(req->client) ? 1 : LINGER_MS);
}

/* ---- events of the client ---- */

static void on_readable(void *arg)
{
    struct api_request *req = arg;
    struct evbuffer *in;

    if (req->state != LINGER) {
        request_serve(req);
        return;
    }
    in = stream_in(req->client);
    req->drained += evbuffer_get_length(in);
    input_discard(in, SIZE_MAX);
    if (req->drained > API_DRAIN_MAX)
        request_close(req);
}

static void on_drained(void *arg)
{
    struct api_request *req = arg;

    if (req->state == LINGER)
        request_linger(req);
    else if (req->state == READ_HEAD && req->scan.pos == 0)
        request_begin(req);
    if (req->state == READ_HEAD)
        request_serve(req);
}

static void on_ended(void *arg, int sys)
{
    struct api_request *req = arg;

    if (sys || (req->state == LINGER && evbuffer_get_length(stream_out(req->client)) == 0))
        request_close(req);
    else if (req->state != LINGER)
        request_serve(req);
}

static void on_timeout(void *arg)
{
    struct api_request *req = arg;
    bool begun = req->state == READ_HEAD && evbuffer_get_length(stream_in(req->client)) > 0;

    if (req->work)
        work_give_up(req);
    else if (begun || req->state == READ_BODY)
        reply_status(req, 408);
    else
        request_close(req);
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
    request_forget(req);
    req->shed = s->open >= s->config.max;
    s->open += !req->shed;
    if (req->shed)
        api_fail(req, 503, "overloaded", "too many connections");
    else
        request_begin(req);
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
            request_linger(req);
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
        request_close(req);
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
