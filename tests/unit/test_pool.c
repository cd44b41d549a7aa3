#include "base/pool.h"

#include "base/mem.h"

#include "unit.h"

#include <poll.h>
#include <stdatomic.h>
#include <unistd.h>

static atomic_int ran;
static int done, dropped;

struct task {
    struct pool_job job;
    atomic_int *gate; /* run waits while it is 0 */
};

static void task_run(struct pool_job *job)
{
    struct task *t = CONTAINER_OF(job, struct task, job);

    while (t->gate && !atomic_load(t->gate))
        usleep(1000);
    atomic_fetch_add(&ran, 1);
}

static void task_done(struct pool_job *job)
{
    done++;
    dropped += job->dropped;
}

static void reset(void)
{
    atomic_store(&ran, 0);
    done = dropped = 0;
}

static void every_job_runs_and_reports_once(void **state)
{
    static struct task tasks[500];
    struct pool *p;
    struct error err;

    (void)state;
    reset();
    assert_ok(pool_new(4, 500, &p, &err));
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++) {
        tasks[i] = (struct task){.job = {.run = task_run, .done = task_done}};
        assert_int_equal(pool_submit(p, &tasks[i].job), 0);
    }
    while (done < (int)ARRAY_LEN(tasks)) {
        struct pollfd fd = {.fd = pool_fd(p), .events = POLLIN};

        assert_int_equal(poll(&fd, 1, 5000), 1);
        pool_collect(p);
    }
    assert_int_equal(atomic_load(&ran), ARRAY_LEN(tasks));
    pool_free(p);
    assert_int_equal(done, ARRAY_LEN(tasks));
    assert_int_equal(dropped, 0);
}

static void a_full_queue_refuses_and_the_end_drops(void **state)
{
    static struct task tasks[4];
    atomic_int gate = 0;
    struct pool *p;
    struct error err;
    int accepted = 0;

    (void)state;
    reset();
    assert_ok(pool_new(1, 2, &p, &err));
    usleep(50000);
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++) {
        tasks[i] = (struct task){.job = {.run = task_run, .done = task_done}, .gate = &gate};
        accepted += pool_submit(p, &tasks[i].job) == 0;
        usleep(20000);
    }
    assert_int_equal(accepted, 3); /* one runs, two wait */
    atomic_store(&gate, 1);
    pool_free(p);
    assert_int_equal(done, 3);
    assert_int_equal(atomic_load(&ran) + dropped, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_job_runs_and_reports_once),
        cmocka_unit_test(a_full_queue_refuses_and_the_end_drops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
