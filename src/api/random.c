/* NSM randomness for the routes: GET /v1/random (spec/capsule-api.md section 7), and nonces. */
#include "api/internal.h"

#include "base/text.h"
#include "codec/json.h"

#define RANDOM_LEN 32

/* A request that wants bytes. */
struct draw {
    struct reservoir_waiter waiter;
    struct reservoir *from;
    struct api_request *req;
    void *data;
    void (*use)(struct api_request *req, void *data, const uint8_t *bytes);
    void (*drop)(void *data);
};

static void on_ready(struct reservoir_waiter *w, enum reservoir_result result,
                     const struct error *err)
{
    struct draw *d = CONTAINER_OF(w, struct draw, waiter);
    uint8_t bytes[RANDOM_DRAW_MAX];

    if (result == RESERVOIR_READY) {
        reservoir_take(d->from, bytes, w->len);
        d->use(d->req, d->data, bytes);
        mem_wipe(bytes, sizeof(bytes));
    } else {
        d->drop(d->data);
        if (result == RESERVOIR_FAILED)
            api_fail(d->req, 500, "nsm_failure", err->msg);
        else
            api_fail(d->req, 503, "overloaded", "the service is stopping");
    }
    free(d);
}

void random_draw(struct capsule_api *api, struct api_request *req, size_t len, void *data,
                 void (*use)(struct api_request *req, void *data, const uint8_t *bytes),
                 void (*drop)(void *data))
{
    struct draw *d = xcalloc(1, sizeof(*d));

    *d = (struct draw){.waiter = {.len = len, .ready = on_ready},
                       .from = api->reservoir,
                       .req = req,
                       .data = data,
                       .use = use,
                       .drop = drop};
    if (reservoir_want(api->reservoir, &d->waiter) == 0)
        return;
    free(d);
    drop(data);
    api_fail(req, 503, "overloaded", "too many requests wait for random bytes; try again");
}

static void answer(struct api_request *req, void *data, const uint8_t *bytes)
{
    AUTO_BUF struct buf body = BUF_SECRET(256);
    struct json_writer w = {.out = &body};
    char hex[2 + 2 * RANDOM_LEN + 1] = "0x";

    (void)data;
    hex_encode(slice_of(bytes, RANDOM_LEN), hex + 2);
    json_put_object(&w);
    json_put_key(&w, "random_bytes");
    json_put_cstr(&w, hex);
    json_put_object_end(&w);
    api_reply_json(req, 200, &body);
    mem_wipe(hex, sizeof(hex));
}

static void drop_nothing(void *data)
{
    (void)data;
}

void handle_random(struct api_request *req, void *arg)
{
    random_draw(arg, req, RANDOM_LEN, NULL, answer, drop_nothing);
}
