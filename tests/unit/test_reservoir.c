#include "unit.h"

#include "api/reservoir.h"
#include "base/log.h"
#include "nsm/nsm.h"
#include "nsm_stream.h"

#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

/* ---- an NSM behind a gate ---- */

struct module {
    struct soft_nsm *soft;
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool open, broken;
    atomic_int dials;
    pthread_t server;
    bool serving;
    int server_fd;
};

static void *serve(void *arg)
{
    struct module *m = arg;
    struct error err;

    (void)soft_nsm_serve(m->soft, m->server_fd, &err);
    close(m->server_fd);
    return NULL;
}

/* In the thread of the reservoir. */
static int dial(void *arg, struct error *err)
{
    struct module *m = arg;
    int fds[2];

    atomic_fetch_add(&m->dials, 1);
    pthread_mutex_lock(&m->lock);
    while (!m->open)
        pthread_cond_wait(&m->opened, &m->lock);
    pthread_mutex_unlock(&m->lock);
    if (m->broken)
        return error_set(err, ERR_NET, "nobody there");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return error_sys(err, errno, "socketpair");
    m->server_fd = fds[1];
    m->serving = pthread_create(&m->server, NULL, serve, m) == 0;
    return fds[0];
}

static void open_gate(struct module *m)
{
    pthread_mutex_lock(&m->lock);
    m->open = true;
    pthread_cond_broadcast(&m->opened);
    pthread_mutex_unlock(&m->lock);
}

struct bench {
    struct module module;
    struct nsm *nsm;
    struct event_base *base;
    struct reservoir *r;
};

static void begin(struct bench *b)
{
    char dir[] = "/tmp/capsule-test-reservoir-XXXXXX";
    const struct soft_nsm_config config = {.ca_dir = mkdtemp(dir)};
    struct error err;

    log_setup(LOG_ERROR, LOG_TEXT);

    *b = (struct bench){
        .module = {.lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER}};
    b->module.soft = soft_nsm_new(&config, &err);
    assert_non_null(b->module.soft);
    b->base = event_base_new();
    b->nsm = nsm_open_stream(dial, &b->module, 10000);
    assert_ok(reservoir_new(b->base, b->nsm, &b->r, &err));
    assert_ok(tree_remove(dir, &err));
}

static void end(struct bench *b)
{
    reservoir_free(b->r);
    nsm_close(b->nsm);
    if (b->module.serving)
        pthread_join(b->module.server, NULL);
    soft_nsm_free(b->module.soft);
    event_base_free(b->base);
}

/* ---- who waits ---- */

#define WANTED 32

struct waiter {
    struct reservoir_waiter w;
    struct reservoir *r;
    uint8_t bytes[WANTED];
    int turn; /* 0: not called yet */
    enum reservoir_result result;
};

static int turns;

static void ready(struct reservoir_waiter *w, enum reservoir_result result, const struct error *err)
{
    struct waiter *me = CONTAINER_OF(w, struct waiter, w);

    assert_int_equal(me->turn, 0);
    assert_int_equal(err != NULL, result == RESERVOIR_FAILED);
    me->turn = ++turns;
    me->result = result;
    if (result == RESERVOIR_READY)
        reservoir_take(me->r, me->bytes, sizeof(me->bytes));
}

static int want(struct bench *b, struct waiter *me)
{
    *me = (struct waiter){.w = {.len = WANTED, .ready = ready}, .r = b->r};
    return reservoir_want(b->r, &me->w);
}

static void await(const struct bench *b, const struct waiter *me)
{
    while (!me->turn)
        assert_int_equal(event_base_loop(b->base, EVLOOP_ONCE), 0);
}

/* Many times what is kept: first come, first served, and no byte twice. */
static void every_byte_is_given_once(void **state)
{
    static struct waiter all[RESERVOIR_WAITING_MAX];
    static uint8_t seen[4 * RESERVOIR_WAITING_MAX][WANTED];
    size_t count = 0;
    struct bench b;

    (void)state;
    begin(&b);
    turns = 0;
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < ARRAY_LEN(all); i++)
            assert_int_equal(want(&b, &all[i]), 0);
        open_gate(&b.module);
        await(&b, &all[ARRAY_LEN(all) - 1]);
        for (size_t i = 0; i < ARRAY_LEN(all); i++) {
            assert_int_equal(all[i].turn, round * (int)ARRAY_LEN(all) + (int)i + 1);
            assert_int_equal(all[i].result, RESERVOIR_READY);
            memcpy(seen[count++], all[i].bytes, WANTED);
        }
    }
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(seen[i], seen[j], WANTED);
    assert_int_equal(atomic_load(&b.module.dials), 1);
    end(&b);
}

/* Nobody waits in vain: the queue has an end, and the end of the reservoir is said. */
static void the_queue_is_bounded_and_ends(void **state)
{
    static struct waiter all[RESERVOIR_WAITING_MAX + 1];
    struct bench b;

    (void)state;
    begin(&b);
    turns = 0;
    for (size_t i = 0; i < RESERVOIR_WAITING_MAX; i++)
        assert_int_equal(want(&b, &all[i]), 0);
    assert_int_equal(want(&b, &all[RESERVOIR_WAITING_MAX]), -1);
    assert_int_equal(turns, 0);
    open_gate(&b.module);
    end(&b);
    for (size_t i = 0; i < RESERVOIR_WAITING_MAX; i++)
        assert_int_equal(all[i].result, RESERVOIR_ENDED);
    assert_int_equal(turns, RESERVOIR_WAITING_MAX);
}

/* A failing module is asked once for all who wait, and again for who comes later. */
static void failure_is_told_and_not_for_ever(void **state)
{
    struct waiter first, second, third;
    struct bench b;

    (void)state;
    begin(&b);
    turns = 0;
    b.module.broken = true;
    assert_int_equal(want(&b, &first), 0);
    assert_int_equal(want(&b, &second), 0);
    open_gate(&b.module);
    await(&b, &second);
    assert_int_equal(first.result, RESERVOIR_FAILED);
    assert_int_equal(second.result, RESERVOIR_FAILED);
    assert_int_equal(atomic_load(&b.module.dials), 1);
    b.module.broken = false;
    assert_int_equal(want(&b, &third), 0);
    await(&b, &third);
    assert_int_equal(third.result, RESERVOIR_READY);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_given_once),
        cmocka_unit_test(the_queue_is_bounded_and_ends),
        cmocka_unit_test(failure_is_told_and_not_for_ever),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
