/* The launcher's half of the heartbeat: who is answered, who is sent away, who has to wait. */
#include "unit.h"

#include "base/file.h"
#include "base/mem.h"
#include "launch/heartbeat.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

struct rig {
    char dir[32];
    struct heartbeat heartbeat;
};

static void rig_open(struct rig *rig)
{
    struct error err;

    snprintf(rig->dir, sizeof(rig->dir), "/tmp/heartbeat.XXXXXX");
    assert_non_null(mkdtemp(rig->dir));
    rig->heartbeat = HEARTBEAT_NONE;
    assert_ok(heartbeat_listen_unix(&rig->heartbeat, rig->dir, &err));
}

/* Closing leaves nothing in the directory. */
static void rig_close(struct rig *rig)
{
    heartbeat_close(&rig->heartbeat);
    assert_int_equal(rmdir(rig->dir), 0);
}

static int call(const struct rig *rig)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/v.sock_%u", rig->dir, HEARTBEAT_PORT);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

static void say(int fd, uint8_t byte)
{
    assert_int_equal(send(fd, &byte, 1, MSG_NOSIGNAL), 1);
}

static void test_the_byte_is_answered(void **state)
{
    struct rig rig;
    uint8_t got = 0;
    int fd;

    (void)state;
    rig_open(&rig);
    assert_false(heartbeat_serve(&rig.heartbeat));
    fd = call(&rig);
    assert_false(heartbeat_serve(&rig.heartbeat));
    say(fd, HEARTBEAT_BYTE);
    assert_true(heartbeat_serve(&rig.heartbeat));
    assert_int_equal(recv(fd, &got, 1, 0), 1);
    assert_int_equal(got, HEARTBEAT_BYTE);
    close(fd);
    rig_close(&rig);
}

static void test_strangers_delay_nobody(void **state)
{
    struct pollfd fds[HEARTBEAT_FDS];
    int silent[2 * HEARTBEAT_PEERS], wrong, right;
    struct rig rig;
    uint8_t got;

    (void)state;
    rig_open(&rig);
    wrong = call(&rig);
    say(wrong, 0);
    assert_false(heartbeat_serve(&rig.heartbeat));
    assert_int_equal(recv(wrong, &got, 1, 0), 0);
    close(call(&rig));
    for (size_t i = 0; i < ARRAY_LEN(silent); i++) {
        silent[i] = call(&rig);
        assert_false(heartbeat_serve(&rig.heartbeat));
    }
    assert_int_equal(heartbeat_poll_set(&rig.heartbeat, fds), HEARTBEAT_FDS);
    assert_int_equal(recv(silent[0], &got, 1, 0), 0); /* the oldest had to go */
    right = call(&rig);
    say(right, HEARTBEAT_BYTE);
    assert_true(heartbeat_serve(&rig.heartbeat));
    assert_int_equal(recv(right, &got, 1, 0), 1);
    for (size_t i = 0; i < ARRAY_LEN(silent); i++)
        close(silent[i]);
    close(wrong);
    close(right);
    rig_close(&rig);
}

static bool count_down(void *arg)
{
    int *left = arg;

    return --*left > 0;
}

/* With AF_VSOCK one enclave starts at a time on a machine. */
static void test_vsock_starts_wait_for_each_other(void **state)
{
    struct heartbeat first = HEARTBEAT_NONE, second = HEARTBEAT_NONE;
    struct error err;
    int turns = 3;

    (void)state;
    if (heartbeat_listen_vsock(&first, 16, 0, 0, NULL, NULL, &err) < 0) {
        assert_true(err.sys == EAFNOSUPPORT || err.sys == ENODEV || err.kind == ERR_TIMEOUT);
        heartbeat_close(&first);
        skip(); /* no vsock here, or somebody is starting an enclave */
    }
    assert_int_equal(heartbeat_listen_vsock(&second, 17, 200, 0, NULL, NULL, &err), -1);
    assert_int_equal(err.kind, ERR_TIMEOUT);
    heartbeat_close(&second);
    assert_int_equal(heartbeat_listen_vsock(&second, 17, 60000, 0, count_down, &turns, &err), -1);
    assert_int_equal(turns, 0);
    heartbeat_close(&second);
    heartbeat_close(&first);
    assert_ok(heartbeat_listen_vsock(&second, 17, 0, 0, NULL, NULL, &err));
    heartbeat_close(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_byte_is_answered),
        cmocka_unit_test(test_strangers_delay_nobody),
        cmocka_unit_test(test_vsock_starts_wait_for_each_other),
    };

    return cmocka_run_group_tests_name("heartbeat", tests, NULL, NULL);
}
