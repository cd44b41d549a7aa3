/* Which lanes of a host mount take the kernel's requests. */
#include "enclave/mount_turns.h"
#include "unit.h"

#include <poll.h>

static void join(struct mount_turns *t, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned lane = MOUNT_LANES_MAX;

        assert_int_equal(mount_turns_join(t, &lane), 0);
        assert_int_equal(lane, i);
    }
}

/* Whether the lane was woken, which is then over. */
static bool was_called(struct mount_turns *t, unsigned lane)
{
    struct pollfd p = {.fd = mount_turns_call_fd(t, lane), .events = POLLIN};
    bool called = poll(&p, 1, 0) == 1;

    mount_turns_called(t, lane);
    assert_int_equal(poll(&p, 1, 0), 0);
    return called;
}

static void test_one_is_enough(void **state)
{
    struct mount_turns t;

    (void)state;
    mount_turns_init(&t);
    join(&t, 3);
    assert_true(mount_turns_has(&t, 0));
    assert_false(mount_turns_has(&t, 1) || mount_turns_has(&t, 2));
    assert_false(mount_turns_rest(&t, 0));
    assert_true(mount_turns_has(&t, 0));
    assert_true(mount_turns_calm(&t));
    mount_turns_free(&t);
}

static void test_who_cannot_is_replaced(void **state)
{
    struct mount_turns t;

    (void)state;
    mount_turns_init(&t);
    join(&t, 3);
    mount_turns_set_able(&t, 0, false);
    assert_true(mount_turns_has(&t, 1) && was_called(&t, 1));
    assert_false(was_called(&t, 2));
    /* The one that is left keeps the turn, until the other is back. */
    assert_false(mount_turns_rest(&t, 1));
    mount_turns_set_able(&t, 0, true);
    assert_true(mount_turns_rest(&t, 1));
    assert_false(mount_turns_rest(&t, 0));

    /* With none able, the first that is again has it, also if it rested. */
    for (unsigned i = 0; i < 3; i++)
        mount_turns_set_able(&t, i, false);
    mount_turns_set_able(&t, 2, true);
    assert_true(mount_turns_has(&t, 2));
    mount_turns_set_able(&t, 2, true);
    assert_false(mount_turns_rest(&t, 2));
    mount_turns_free(&t);
}

static void test_many_requests_call_others(void **state)
{
    struct mount_turns t;
    unsigned with = 0;

    (void)state;
    mount_turns_init(&t);
    t.most = 2; /* as on four processors */
    join(&t, 4);
    mount_turns_count(&t, 7);
    assert_false(was_called(&t, 1));
    mount_turns_count(&t, 1);
    assert_true(mount_turns_has(&t, 1) && was_called(&t, 1));
    assert_false(mount_turns_calm(&t));
    for (int i = 0; i < 100; i++)
        mount_turns_count(&t, 1);
    for (unsigned i = 0; i < 4; i++)
        with += mount_turns_has(&t, i);
    assert_int_equal(with, 2);
    mount_turns_count(&t, -106);
    assert_true(mount_turns_calm(&t));
    assert_true(mount_turns_rest(&t, 0));
    assert_false(mount_turns_rest(&t, 1));
    mount_turns_free(&t);
}

static void test_no_more_than_there_may_be(void **state)
{
    struct mount_turns t;
    unsigned lane;

    (void)state;
    mount_turns_init(&t);
    join(&t, MOUNT_LANES_MAX);
    assert_int_equal(mount_turns_join(&t, &lane), -1);
    mount_turns_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_is_enough),
        cmocka_unit_test(test_who_cannot_is_replaced),
        cmocka_unit_test(test_many_requests_call_others),
        cmocka_unit_test(test_no_more_than_there_may_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
