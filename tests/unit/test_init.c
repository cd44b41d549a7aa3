#include "unit.h"

#include "init/heartbeat.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

/* A connected pair: [0] is what capsule-init holds, [1] the launcher. */
static void make_pair(int pair[2])
{
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
}

static void test_exchange(void **state)
{
    struct error err = {0};
    uint8_t byte = 0xb7;
    int pair[2];

    (void)state;
    make_pair(pair);
    assert_int_equal(write(pair[1], &byte, 1), 1);
    assert_ok(heartbeat_exchange(pair[0], 1000, &err));
    byte = 0;
    assert_int_equal(read(pair[1], &byte, 1), 1);
    assert_int_equal(byte, 0xb7);
    close(pair[0]);
    close(pair[1]);
}

static void test_wrong_answer(void **state)
{
    struct error err = {0};
    uint8_t byte = 0x48;
    int pair[2];

    (void)state;
    make_pair(pair);
    assert_int_equal(write(pair[1], &byte, 1), 1);
    assert_int_equal(heartbeat_exchange(pair[0], 1000, &err), -1);
    assert_string_equal(err.msg, "the launcher answered 0x48 instead of 0xb7");
    close(pair[0]);
    close(pair[1]);
}

static void test_no_answer(void **state)
{
    struct error err = {0};
    int pair[2];

    (void)state;
    make_pair(pair);
    assert_int_equal(heartbeat_exchange(pair[0], 20, &err), -1);
    assert_int_equal(err.kind, ERR_TIMEOUT);
    /* Half-closed: the byte still goes out, the answer never comes. */
    shutdown(pair[1], SHUT_WR);
    assert_int_equal(heartbeat_exchange(pair[0], 1000, &err), -1);
    assert_string_equal(err.msg, "the launcher's answer: ends early");
    close(pair[1]);
    assert_int_equal(heartbeat_exchange(pair[0], 1000, &err), -1);
    close(pair[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_wrong_answer),
        cmocka_unit_test(test_no_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
