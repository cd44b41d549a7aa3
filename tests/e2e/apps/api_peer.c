/*
 * The API's HTTP server with a few routes of its own, for the end-to-end tests.
 * Usage: api_peer [MAX-CONNECTIONS [POOL-QUEUE]]. Prints its port, ends at SIGTERM.
 */
#include "api/server.h"

#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static struct pool *pool;

/* Length of the body and the sum of its bytes. */
static void handle_sum(struct api_request *req, void *arg)
{
    struct slice body = api_body(req);
    struct buf out = BUF(100);
    unsigned sum = 0;

    (void)arg;
    for (size_t i = 0; i < body.len; i++)
        sum += body.ptr[i];
    if (buf_printf(&out, "{\"length\":%zu,\"sum\":%u}", body.len, sum) == 0)
        api_reply_json(req, 200, &out);
}

static void handle_echo(struct api_request *req, void *arg)
{
    struct slice body = api_body(req);
    struct buf out = BUF_SECRET(API_BODY_MAX);

    (void)arg;
    if (buf_append(&out, body.ptr, body.len) == 0)
        api_reply(req, 200, "application/octet-stream", &out);
}

static void work_slowly(void *data)
{
    (void)data;
    usleep(300000);
}

static void finish_slowly(struct api_request *req, void *data)
{
    struct buf out = BUF(10);

    (void)data;
    if (buf_append_str(&out, "{}") == 0)
        api_reply_json(req, 200, &out);
}

static void drop(void *data)
{
    (void)data;
}

static void handle_slow(struct api_request *req, void *arg)
{
    (void)arg;
    api_run(req, NULL, work_slowly, finish_slowly, drop);
}

static void handle_options(struct api_request *req, void *arg)
{
    (void)arg;
    api_header(req, "Access-Control-Allow-Methods", "POST, OPTIONS");
    api_reply(req, 204, NULL, NULL);
}

static void decorate(struct api_request *req, void *arg)
{
    (void)arg;
    if (strcmp(api_path(req), "/echo") == 0)
        api_header(req, "Access-Control-Allow-Origin", "*");
}

static const struct api_route routes[] = {
    {"GET", "/sum", handle_sum},    {"POST", "/sum", handle_sum},
    {"POST", "/echo", handle_echo}, {"OPTIONS", "/echo", handle_options},
    {"POST", "/slow", handle_slow}, {NULL, NULL, NULL},
};

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(arg);
}

static void on_pool(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    pool_collect(pool);
}

int main(int argc, char **argv)
{
    struct event_base *base = event_base_new();
    struct api_config config = {.name = "api", .routes = routes, .decorate = decorate};
    struct api_server *server;
    struct event *term, *results;
    struct error err;

    signal(SIGPIPE, SIG_IGN);
    config.max = argc > 1 ? (size_t)atoi(argv[1]) : API_PRIMARY_MAX;
    if (pool_new(2, argc > 2 ? (size_t)atoi(argv[2]) : 64, &pool, &err) < 0)
        return 1;
    config.pool = pool;
    if (api_server_start(base, &config, &server, &err) < 0) {
        error_print("api_peer", &err);
        return 1;
    }
    term = evsignal_new(base, SIGTERM, on_stop, base);
    results = event_new(base, pool_fd(pool), EV_READ | EV_PERSIST, on_pool, NULL);
    event_add(term, NULL);
    event_add(results, NULL);
    printf("%u\n", api_server_port(server));
    fflush(stdout);
    event_base_dispatch(base);
    api_server_drain(server);
    event_free(term);
    event_free(results);
    pool_free(pool);
    api_server_stop(server);
    event_base_free(base);
    return 0;
}
