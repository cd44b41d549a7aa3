#include "api/server_priv.h"

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

void work_give_up(struct api_request *req)
{
    struct work *w = req->work;

    w->req = NULL;
    w->body = req->body;
    req->body = BUF_SECRET(API_BODY_MAX);
    req->work = NULL;
    api_fail(req, 503, "upstream_unavailable", "Capsule API service unavailable");
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
            api_fail(req, 503, "overloaded", "the service is stopping");
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
    api_fail(req, 503, "overloaded", "too many requests are waiting; try again");
}

void api_run(struct api_request *req, void *data, void (*run)(void *data),
             void (*finish)(struct api_request *req, void *data), void (*drop)(void *data))
{
    api_run_in(req, req->server->config.pool, data, run, finish, drop);
}
