#include "unit.h"

#include "base/clock.h"
#include "base/file.h"
#include "vsock/carrier.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* spec/wire-protocols.md section 10, item 3. */
static void port_table(void **state)
{
    static const struct {
        uint32_t cid, egress;
    } good[] = {{4, 20512}, {16, 22048}, {17, 22176}, {4096, 544288}};
    struct error err;
    uint32_t port;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_ok(vsock_host_port(good[i].cid, VSOCK_OFFSET_EGRESS, &port, &err));
        assert_int_equal(port, good[i].egress);
        assert_ok(vsock_host_port(good[i].cid, VSOCK_OFFSET_CLOCK, &port, &err));
        assert_int_equal(port, good[i].egress + 1);
    }
    assert_int_equal(vsock_host_port(3, 0, &port, &err), -1);
    assert_int_equal(vsock_host_port(UINT32_MAX, 0, &port, &err), -1);
    assert_int_equal(vsock_host_port(16, 128, &port, &err), -1);
    /* The last CID whose whole block fits: 20000 + 128 c + 127 <= 2^32 - 1. */
    assert_ok(vsock_host_port(33554274, 127, &port, &err));
    assert_int_equal(vsock_host_port(33554276, 0, &port, &err), -1);
    assert_ok(vsock_mount_port(16, 0, &port, &err));
    assert_int_equal(port, 22064);
    assert_ok(vsock_mount_port(16, 111, &port, &err));
    assert_int_equal(port, 22175);
    assert_int_equal(vsock_mount_port(16, 112, &port, &err), -1);
}

/* Both sides of a UNIX carrier in one process. */
struct link {
    char dir[64];
    struct event_base *base;
    struct carrier *host, *enclave;
    int accepted; /* last connection that a listener was given, or -1 */
    int dialled;  /* -2 while nothing has been heard */
    struct error why;
};

static int open_dir(const char *path)
{
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static void link_open(struct link *l)
{
    struct carrier_config config = {.kind = CARRIER_UNIX, .cid = 16, .door_fd = -1};
    struct error err;

    *l = (struct link){.dir = "/tmp/capsule-test-XXXXXX", .accepted = -1, .dialled = -2};
    assert_non_null(mkdtemp(l->dir));
    l->base = event_base_new();
    config.side = CARRIER_ENCLAVE;
    config.dir_fd = open_dir(l->dir);
    assert_ok(carrier_open(l->base, &config, &l->enclave, &err));
    config.side = CARRIER_HOST;
    config.dir_fd = open_dir(l->dir);
    assert_ok(carrier_open(l->base, &config, &l->host, &err));
}

static void link_close(struct link *l)
{
    struct error err;

    fd_close(&l->accepted);
    if (l->dialled >= 0)
        fd_close(&l->dialled);
    carrier_free(l->host);
    carrier_free(l->enclave);
    event_base_free(l->base);
    assert_ok(tree_remove(l->dir, &err));
}

static void on_accept(void *arg, int fd)
{
    struct link *l = arg;

    fd_close(&l->accepted);
    l->accepted = fd;
}

static void on_dialled(void *arg, int fd, const struct error *err)
{
    struct link *l = arg;

    l->dialled = fd;
    if (fd < 0)
        l->why = *err;
}

static void dial(struct link *l, struct carrier *c, uint32_t port)
{
    int64_t deadline = clock_mono_ms() + 8000;

    if (l->dialled >= 0)
        fd_close(&l->dialled);
    l->dialled = -2;
    carrier_dial(c, port, on_dialled, l);
    assert_int_equal(l->dialled, -2);
    while (l->dialled == -2 && clock_mono_ms() < deadline)
        event_base_loop(l->base, EVLOOP_ONCE);
    assert_int_not_equal(l->dialled, -2);
}

/* What one end writes the other reads, from the first byte. */
static void assert_connected(struct link *l)
{
    char got[16];

    for (int i = 0; i < 10; i++)
        event_base_loop(l->base, EVLOOP_NONBLOCK);
    assert_true(l->dialled >= 0 && l->accepted >= 0);
    assert_int_equal(send(l->dialled, "hello", 5, 0), 5);
    assert_int_equal(recv(l->accepted, got, sizeof(got), 0), 5);
    assert_int_equal(send(l->accepted, "world", 5, 0), 5);
    assert_int_equal(recv(l->dialled, got, sizeof(got), 0), 5);
    assert_memory_equal(got, "world", 5);
}

static void unix_carrier_connects_both_ways(void **state)
{
    struct listener_spec spec = {.name = "test", .max = 8, .accepted = on_accept};
    struct listener *in_enclave, *on_host, *other;
    struct link l;
    struct error err;

    (void)state;
    link_open(&l);
    spec.arg = &l;
    assert_ok(carrier_listen(l.enclave, 8080, &spec, &in_enclave, &err));
    assert_ok(carrier_listen(l.host, 22049, &spec, &on_host, &err));
    assert_int_equal(carrier_listen(l.enclave, 8080, &spec, &other, &err), -1);
    assert_int_equal(err.sys, EADDRINUSE);
    assert_int_equal(carrier_listen(l.host, 22049, &spec, &other, &err), -1);
    assert_int_equal(err.sys, EADDRINUSE);
    dial(&l, l.host, 8080);
    assert_connected(&l);
    dial(&l, l.enclave, 22049);
    assert_connected(&l);
    carrier_unlisten(l.enclave, in_enclave);
    carrier_unlisten(l.host, on_host);
    link_close(&l);
}

/* As in the sandbox: the host makes v.sock, and the enclave's side comes later and cannot write. */
static void unix_carrier_takes_a_door_from_the_host(void **state)
{
    struct carrier_config config = {.kind = CARRIER_UNIX, .cid = 16, .door_fd = -1};
    struct listener_spec spec = {.name = "test", .max = 8, .accepted = on_accept};
    struct link l = {.dir = "/tmp/capsule-test-XXXXXX", .accepted = -1, .dialled = -2};
    struct listener *listener;
    struct error err;

    (void)state;
    assert_non_null(mkdtemp(l.dir));
    l.base = event_base_new();
    spec.arg = &l;
    config.side = CARRIER_HOST;
    config.dir_fd = open_dir(l.dir);
    assert_ok(carrier_open(l.base, &config, &l.host, &err));
    config.door_fd = carrier_make_door(l.host, &err);
    assert_true(config.door_fd >= 0);
    carrier_dial(l.host, 8080, on_dialled, &l);
    for (int i = 0; i < 5; i++)
        event_base_loop(l.base, EVLOOP_NONBLOCK);
    assert_int_equal(l.dialled, -2); /* waits, as nobody has refused it */
    config.side = CARRIER_ENCLAVE;
    config.dir_fd = open_dir(l.dir);
    assert_ok(carrier_open(l.base, &config, &l.enclave, &err));
    assert_ok(carrier_listen(l.enclave, 8080, &spec, &listener, &err));
    while (l.dialled == -2)
        event_base_loop(l.base, EVLOOP_ONCE);
    assert_connected(&l);
    carrier_unlisten(l.enclave, listener);
    link_close(&l);
}

static void unix_carrier_refuses_what_nobody_serves(void **state)
{
    struct listener_spec spec = {.name = "test", .max = 1, .accepted = on_accept};
    struct listener *only_one;
    struct link l;
    struct error err;

    (void)state;
    link_open(&l);
    spec.arg = &l;
    dial(&l, l.host, 4711);
    assert_int_equal(l.dialled, -1);
    assert_int_equal(l.why.sys, ECONNREFUSED);
    dial(&l, l.enclave, 4711);
    assert_int_equal(l.dialled, -1);
    assert_int_equal(l.why.sys, ENOENT);
    /* A full port refuses as well, and serves again when there is room. */
    assert_ok(carrier_listen(l.enclave, 80, &spec, &only_one, &err));
    dial(&l, l.host, 80);
    assert_connected(&l);
    dial(&l, l.host, 80);
    assert_int_equal(l.dialled, -1);
    listener_done(only_one);
    dial(&l, l.host, 80);
    assert_connected(&l);
    carrier_unlisten(l.enclave, only_one);
    link_close(&l);
}

static int dial_raw(const struct link *l)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/v.sock", l->dir);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

/* How long the loop finds nothing to do, at most `ms`. */
static int64_t idle_ms(struct link *l, int64_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    int64_t start = clock_mono_ms();

    event_base_loopexit(l->base, &tv);
    event_base_loop(l->base, EVLOOP_ONCE);
    return clock_mono_ms() - start;
}

static void unix_carrier_takes_a_greeting_in_pieces(void **state)
{
    struct listener_spec spec = {.name = "test", .max = 1, .accepted = on_accept};
    struct listener *listener;
    char got[16];
    struct error err;
    struct link l;
    int fd;

    (void)state;
    link_open(&l);
    spec.arg = &l;
    assert_ok(carrier_listen(l.enclave, 80, &spec, &listener, &err));
    fd = dial_raw(&l);
    assert_int_equal(send(fd, "CONN", 4, 0), 4);
    for (int i = 0; i < 10; i++)
        event_base_loop(l.base, EVLOOP_NONBLOCK);
    assert_true(idle_ms(&l, 200) >= 150); /* half a line keeps nobody busy */
    assert_int_equal(send(fd, "ECT 80\nfirst", 12, 0), 12);
    for (int i = 0; i < 10; i++)
        event_base_loop(l.base, EVLOOP_NONBLOCK);
    assert_true(l.accepted >= 0);
    assert_int_equal(recv(l.accepted, got, sizeof(got), 0), 5);
    assert_memory_equal(got, "first", 5);
    assert_int_equal(recv(fd, got, sizeof(got), 0), 5);
    assert_memory_equal(got, "OK 1\n", 5);
    close(fd);
    carrier_unlisten(l.enclave, listener);
    link_close(&l);
}

/* A hostile enclave must not lead the host to other sockets of the machine, nor the reverse. */
static void unix_carrier_follows_no_link(void **state)
{
    struct sockaddr_un decoy = {.sun_family = AF_UNIX};
    char door[80], egress[80];
    struct link l;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    (void)state;
    link_open(&l);
    snprintf(door, sizeof(door), "%s/v.sock", l.dir);
    snprintf(egress, sizeof(egress), "%s/v.sock_20480", l.dir);
    snprintf(decoy.sun_path, sizeof(decoy.sun_path), "%s/docker.sock", l.dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&decoy, sizeof(decoy)), 0);
    assert_int_equal(listen(fd, 4), 0);

    assert_int_equal(unlink(door), 0);
    assert_int_equal(symlink(decoy.sun_path, door), 0);
    dial(&l, l.host, 17000);
    assert_int_equal(l.dialled, -1);
    assert_int_equal(l.why.sys, ENOTSOCK);
    assert_int_equal(symlink("docker.sock", egress), 0);
    dial(&l, l.enclave, 20480);
    assert_int_equal(l.dialled, -1);
    assert_int_equal(accept(fd, NULL, NULL), -1);
    assert_int_equal(errno, EAGAIN);

    assert_int_equal(unlink(door), 0);
    assert_int_equal(mkfifo(door, 0600), 0);
    dial(&l, l.host, 17000);
    assert_int_equal(l.dialled, -1);
    assert_int_equal(l.why.sys, ENOTSOCK);
    close(fd);
    link_close(&l);
}

/* A link in the place of a socket to listen on is neither followed nor taken for an old socket. */
static void unix_carrier_listens_through_no_link(void **state)
{
    struct listener_spec spec = {.name = "egress", .max = 4, .accepted = on_accept};
    struct sockaddr_un old = {.sun_family = AF_UNIX};
    struct listener *listener = NULL;
    char egress[80];
    struct error err;
    struct stat st;
    struct link l;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    link_open(&l);
    snprintf(egress, sizeof(egress), "%s/v.sock_20480", l.dir);
    snprintf(old.sun_path, sizeof(old.sun_path), "%s/old.sock", l.dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&old, sizeof(old)), 0);
    close(fd); /* a connection to it is refused from now on */
    assert_int_equal(symlink("old.sock", egress), 0);
    assert_int_equal(carrier_listen(l.host, 20480, &spec, &listener, &err), -1);
    assert_int_equal(err.sys, EADDRINUSE);
    assert_int_equal(lstat(egress, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    link_close(&l);
}

static void unix_carrier_takes_over_an_abandoned_socket(void **state)
{
    struct listener_spec spec = {.name = "test", .max = 8, .accepted = on_accept};
    struct listener *first, *second;
    struct link l;
    struct error err;

    (void)state;
    link_open(&l);
    spec.arg = &l;
    assert_ok(carrier_listen(l.host, 22049, &spec, &first, &err));
    carrier_unlisten(l.host, first); /* leaves the name behind, as a crash does */
    assert_ok(carrier_listen(l.host, 22049, &spec, &second, &err));
    dial(&l, l.enclave, 22049);
    assert_connected(&l);
    carrier_unlisten(l.host, second);
    link_close(&l);
}

/* A server that accepts and says nothing: the handshake has its own limit. */
static void silent_peer_times_out(void **state)
{
    struct carrier_config config = {
        .kind = CARRIER_UNIX, .side = CARRIER_HOST, .cid = 16, .door_fd = -1};
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct link l = {.dir = "/tmp/capsule-test-XXXXXX", .accepted = -1, .dialled = -2};
    struct error err;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int64_t start = clock_mono_ms();

    (void)state;
    assert_non_null(mkdtemp(l.dir));
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/v.sock", l.dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 4), 0);
    l.base = event_base_new();
    config.dir_fd = open_dir(l.dir);
    assert_ok(carrier_open(l.base, &config, &l.host, &err));
    assert_int_equal(carrier_dial_wait(l.host, 80, 200, &err), -1);
    assert_int_equal(err.kind, ERR_TIMEOUT);
    dial(&l, l.host, 80);
    assert_int_equal(l.dialled, -1);
    assert_int_equal(l.why.kind, ERR_TIMEOUT);
    assert_in_range(clock_mono_ms() - start, 5000, 7500);
    close(fd);
    link_close(&l);
}

static void cancelled_dial_is_silent(void **state)
{
    struct link l;
    struct dial *d;

    (void)state;
    link_open(&l);
    d = carrier_dial(l.host, 80, on_dialled, &l);
    dial_cancel(d);
    dial_cancel(NULL);
    for (int i = 0; i < 5; i++)
        event_base_loop(l.base, EVLOOP_NONBLOCK);
    assert_int_equal(l.dialled, -2);
    link_close(&l);
}

/* What a machine without a hypervisor can show of AF_VSOCK: ports are claimed and refused. */
static void vsock_ports_are_exclusive(void **state)
{
    struct carrier_config config = {
        .kind = CARRIER_VSOCK, .side = CARRIER_HOST, .cid = 3999, .dir_fd = -1, .door_fd = -1};
    struct listener_spec spec = {.name = "test", .max = 8, .accepted = on_accept};
    struct event_base *base = event_base_new();
    struct listener *first, *second;
    struct carrier *c;
    struct error err;
    uint32_t port;

    (void)state;
    assert_ok(vsock_host_port(config.cid, VSOCK_OFFSET_CLAIM, &port, &err));
    assert_ok(carrier_open(base, &config, &c, &err));
    if (carrier_listen(c, port, &spec, &first, &err) < 0) {
        carrier_free(c);
        event_base_free(base);
        if (err.sys == EAFNOSUPPORT)
            skip();
        fail_msg("%s", err.msg);
    }
    assert_int_equal(carrier_listen(c, port, &spec, &second, &err), -1);
    assert_int_equal(err.sys, EADDRINUSE);
    carrier_unlisten(c, first);
    assert_ok(carrier_listen(c, port, &spec, &second, &err));
    carrier_unlisten(c, second);
    carrier_free(c);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(port_table),
        cmocka_unit_test(unix_carrier_connects_both_ways),
        cmocka_unit_test(unix_carrier_takes_a_door_from_the_host),
        cmocka_unit_test(unix_carrier_refuses_what_nobody_serves),
        cmocka_unit_test(unix_carrier_takes_over_an_abandoned_socket),
        cmocka_unit_test(unix_carrier_takes_a_greeting_in_pieces),
        cmocka_unit_test(unix_carrier_follows_no_link),
        cmocka_unit_test(unix_carrier_listens_through_no_link),
        cmocka_unit_test(silent_peer_times_out),
        cmocka_unit_test(cancelled_dial_is_silent),
        cmocka_unit_test(vsock_ports_are_exclusive),
    };

    return cmocka_run_group_tests_name("vsock", tests, NULL, NULL);
}
