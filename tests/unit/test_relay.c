#include "unit.h"

#include "base/clock.h"
#include "base/file.h"
#include "vsock/listener.h"
#include "vsock/relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* client -- a [relay] b -- server, over TCP or UNIX sockets on either side. */
struct rig {
    struct event_base *base;
    struct relay *relay;
    int client, server;
    bool ended;
    struct relay_totals totals;
};

static void on_end(void *arg, const struct relay_totals *totals)
{
    struct rig *rig = arg;

    rig->ended = true;
    rig->totals = *totals;
}

static void tcp_pair(int fds[2])
{
    struct error err;
    int l = listener_bind_tcp("127.0.0.1", 0, &err);
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons(socket_port(l)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    assert_true(l >= 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fds[0], (struct sockaddr *)&sa, sizeof(sa)), 0);
    do
        fds[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
    while (fds[1] < 0 && errno == EAGAIN);
    close(l);
}

static void open_pair(bool tcp, int fds[2])
{
    struct error err;

    if (tcp)
        tcp_pair(fds);
    else
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    for (int i = 0; i < 2; i++)
        assert_ok(fd_set_nonblock(fds[i], &err));
}

static void rig_open(struct rig *rig, bool tcp_a, bool tcp_b)
{
    int a[2], b[2];

    signal(SIGPIPE, SIG_IGN);
    *rig = (struct rig){.base = event_base_new()};
    open_pair(tcp_a, a);
    open_pair(tcp_b, b);
    rig->client = a[0];
    rig->server = b[0];
    rig->relay = relay_new(rig->base, a[1], b[1], on_end, rig);
}

static void rig_close(struct rig *rig)
{
    if (!rig->ended)
        relay_abort(rig->relay);
    fd_close(&rig->client);
    fd_close(&rig->server);
    event_base_free(rig->base);
}

static void spin(struct rig *rig)
{
    event_base_loop(rig->base, EVLOOP_NONBLOCK);
}

static void spin_until_ended(struct rig *rig, int64_t ms)
{
    int64_t deadline = clock_mono_ms() + ms;

    while (!rig->ended && clock_mono_ms() < deadline)
        spin(rig);
    assert_true(rig->ended);
}

/* Byte `i` of the test stream: a pattern in which a lost or doubled piece shows. */
static uint8_t pattern(uint64_t i)
{
    return (uint8_t)(i * 31 + i / 251);
}

/* Pushes `total` bytes from one end to the other, reading `slow` bytes at a time. */
static void transfer(struct rig *rig, int from, int to, uint64_t total, size_t slow)
{
    static uint8_t out[200000], in[200000];
    uint64_t sent = 0, got = 0;
    int64_t deadline = clock_mono_ms() + 20000;

    while (got < total) {
        size_t want = total - sent < sizeof(out) ? (size_t)(total - sent) : sizeof(out);
        ssize_t n;

        assert_true(clock_mono_ms() < deadline);
        for (size_t i = 0; i < want; i++)
            out[i] = pattern(sent + i);
        n = want ? send(from, out, want, MSG_NOSIGNAL) : 0;
        if (n > 0)
            sent += (uint64_t)n;
        spin(rig);
        n = recv(to, in, slow, 0);
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(in[i], pattern(got + (uint64_t)i));
        if (n > 0)
            got += (uint64_t)n;
    }
}

static void copies_both_ways(void **state)
{
    static const struct {
        bool a, b;
    } kinds[] = {{false, false}, {true, false}, {false, true}, {true, true}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct rig rig;

        rig_open(&rig, kinds[i].a, kinds[i].b);
        transfer(&rig, rig.client, rig.server, 10, 100);
        transfer(&rig, rig.client, rig.server, 5000000, 200000); /* splice */
        transfer(&rig, rig.server, rig.client, 3000000, 70001);
        for (int k = 0; k < 40; k++) /* and back to copying */
            transfer(&rig, rig.client, rig.server, 100, 1000);
        transfer(&rig, rig.client, rig.server, 1000000, 4096);
        assert_int_equal(shutdown(rig.client, SHUT_WR), 0);
        assert_int_equal(shutdown(rig.server, SHUT_WR), 0);
        spin_until_ended(&rig, 2000);
        assert_false(rig.totals.reset);
        assert_int_equal(rig.totals.a_to_b, 10 + 5000000 + 4000 + 1000000);
        assert_int_equal(rig.totals.b_to_a, 3000000);
        rig_close(&rig);
    }
}

static void half_close_keeps_the_other_direction(void **state)
{
    char byte;

    (void)state;
    for (int tcp = 0; tcp < 2; tcp++) {
        struct rig rig;

        rig_open(&rig, tcp, !tcp);
        transfer(&rig, rig.client, rig.server, 1000, 1000);
        shutdown(rig.client, SHUT_WR);
        for (int i = 0; i < 20; i++)
            spin(&rig);
        assert_int_equal(recv(rig.server, &byte, 1, 0), 0);
        assert_false(rig.ended);
        transfer(&rig, rig.server, rig.client, 2000000, 100000);
        shutdown(rig.server, SHUT_WR);
        spin_until_ended(&rig, 2000);
        assert_false(rig.totals.reset);
        assert_int_equal(recv(rig.client, &byte, 1, 0), 0);
        rig_close(&rig);
    }
}

/* A peer that stops reading stops the reading of the other side. */
static void slow_reader_holds_back_the_writer(void **state)
{
    static uint8_t block[65536];
    struct rig rig;
    uint64_t sent = 0;

    (void)state;
    rig_open(&rig, true, false);
    for (int i = 0; i < 2000; i++) {
        ssize_t n = send(rig.client, block, sizeof(block), MSG_NOSIGNAL);

        if (n > 0)
            sent += (uint64_t)n;
        spin(&rig);
    }
    /* Socket buffers on both sides (up to 6 MiB each by default) and 256 KiB in between. */
    assert_in_range(sent, 1, 16 << 20);
    rig_close(&rig);
}

static void reset_is_passed_on_as_a_reset(void **state)
{
    const struct linger now = {.l_onoff = 1};
    struct rig rig;
    char byte;

    (void)state;
    /* TCP to TCP, both ways through a UNIX hop: close without shutdown counts as a reset. */
    rig_open(&rig, true, true);
    setsockopt(rig.server, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    fd_close(&rig.server);
    spin_until_ended(&rig, 2000);
    assert_true(rig.totals.reset);
    assert_int_equal(recv(rig.client, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    rig_close(&rig);

    rig_open(&rig, true, false);
    fd_close(&rig.server);
    spin_until_ended(&rig, 2000);
    assert_true(rig.totals.reset);
    assert_int_equal(recv(rig.client, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    rig_close(&rig);

    rig_open(&rig, true, false);
    setsockopt(rig.client, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    fd_close(&rig.client);
    spin_until_ended(&rig, 2000);
    assert_true(rig.totals.reset);
    /* The relay behind the UNIX socket sees the same as this one did: closed, not ended. */
    assert_int_equal(recv(rig.server, &byte, 1, 0), 0);
    assert_int_equal(send(rig.server, "", 0, MSG_NOSIGNAL), -1);
    assert_int_equal(errno, EPIPE);
    rig_close(&rig);
}

/* A link without half-closed streams: the app's end closes it, after all was delivered. */
static void whole_link_ends_with_the_other_side(void **state)
{
    struct rig rig;
    char got[8];

    (void)state;
    rig_open(&rig, false, true);
    relay_set_whole_link(rig.relay, RELAY_A, true);
    assert_int_equal(send(rig.server, "last", 4, MSG_NOSIGNAL), 4);
    assert_int_equal(shutdown(rig.server, SHUT_WR), 0);
    spin_until_ended(&rig, 2000);
    assert_false(rig.totals.reset);
    assert_int_equal(recv(rig.client, got, sizeof(got), 0), 4);
    assert_int_equal(recv(rig.client, got, sizeof(got), 0), 0);
    assert_int_equal(send(rig.client, "x", 1, MSG_NOSIGNAL), -1);
    rig_close(&rig);
}

/* Its other end was closed, and not reset: the app sees an end, and may still have something to
 * say. */
static void closed_whole_link_is_no_reset(void **state)
{
    struct rig rig;
    char got[8];

    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        rig_open(&rig, false, true);
        if (whole)
            relay_set_whole_link(rig.relay, RELAY_A, true);
        assert_int_equal(send(rig.client, "bye", 3, MSG_NOSIGNAL), 3);
        spin(&rig);
        fd_close(&rig.client);
        if (whole)
            for (int i = 0; i < 20; i++)
                spin(&rig);
        else
            spin_until_ended(&rig, 2000);
        assert_int_equal(rig.ended, !whole);
        (void)!recv(rig.server, got, sizeof(got), 0);
        assert_int_equal(recv(rig.server, got, sizeof(got), 0), whole ? 0 : -1);
        rig_close(&rig);
    }
}

static void idle_half_closed_pair_is_dropped(void **state)
{
    struct rig rig;
    int64_t start = clock_mono_ms();

    (void)state;
    rig_open(&rig, true, false);
    relay_set_idle_limit(rig.relay, 100);
    while (clock_mono_ms() - start < 200) /* both directions open: no limit */
        spin(&rig);
    assert_false(rig.ended);
    shutdown(rig.client, SHUT_WR);
    spin_until_ended(&rig, 2000);
    assert_true(rig.totals.reset);
    rig_close(&rig);
}

static void seeded_bytes_come_first(void **state)
{
    struct rig rig;
    struct error err;
    char got[64];

    (void)state;
    rig_open(&rig, true, false);
    assert_ok(relay_seed(rig.relay, slice_str("first "), &err));
    assert_int_equal(send(rig.client, "second", 6, 0), 6);
    for (int i = 0; i < 50; i++)
        spin(&rig);
    assert_int_equal(recv(rig.server, got, sizeof(got), 0), 12);
    assert_memory_equal(got, "first second", 12);
    rig_close(&rig);
}

/* Only the seed, and the client stays silent. */
static void seeded_bytes_need_no_wake_up(void **state)
{
    struct rig rig;
    struct error err;
    char got[64];

    (void)state;
    rig_open(&rig, true, false);
    assert_ok(relay_seed(rig.relay, slice_str("hello"), &err));
    for (int i = 0; i < 50; i++)
        spin(&rig);
    assert_int_equal(recv(rig.server, got, sizeof(got), 0), 5);
    rig_close(&rig);
}

/* ---- listener ---- */

struct door {
    struct listener *listener;
    int fds[64];
    size_t count;
};

static void on_accept(void *arg, int fd)
{
    struct door *door = arg;

    door->fds[door->count++] = fd;
}

static int knock(uint16_t port)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        fd_close(&fd);
    return fd;
}

static void full_listener_pauses_and_resumes(void **state)
{
    struct event_base *base = event_base_new();
    struct door door = {0};
    struct listener_spec spec = {.name = "test", .max = 2, .accepted = on_accept, .arg = &door};
    struct error err;
    int l = listener_bind_tcp("127.0.0.1", 0, &err), peers[4];
    uint16_t port = socket_port(l);

    (void)state;
    door.listener = listener_new(base, l, &spec);
    for (int i = 0; i < 4; i++)
        peers[i] = knock(port);
    for (int i = 0; i < 10; i++)
        event_base_loop(base, EVLOOP_NONBLOCK);
    assert_int_equal(door.count, 2);
    fd_close(&door.fds[0]);
    listener_done(door.listener);
    for (int i = 0; i < 10; i++)
        event_base_loop(base, EVLOOP_NONBLOCK);
    assert_int_equal(door.count, 3);
    assert_int_equal(listener_stats_of(door.listener).open, 2);
    listener_free(door.listener);
    for (int i = 0; i < 4; i++)
        fd_close(&peers[i]);
    fd_close(&door.fds[1]);
    fd_close(&door.fds[2]);
    event_base_free(base);
}

static bool nobody(const void *arg, const struct sockaddr *peer, socklen_t len)
{
    (void)arg;
    (void)peer;
    (void)len;
    return false;
}

/* What a foreign CID meets: closed before a byte is read, and counted. */
static void unwelcome_peer_is_closed_and_counted(void **state)
{
    struct event_base *base = event_base_new();
    struct door door = {0};
    struct listener_spec spec = {
        .name = "test", .max = 2, .accepted = on_accept, .arg = &door, .admit = nobody};
    struct error err;
    int l = listener_bind_tcp("127.0.0.1", 0, &err), peer;
    uint16_t port = socket_port(l);
    char byte;

    (void)state;
    door.listener = listener_new(base, l, &spec);
    for (int i = 1; i <= 5; i++) {
        peer = knock(port);
        event_base_loop(base, EVLOOP_ONCE);
        assert_int_equal(recv(peer, &byte, 1, 0), 0);
        assert_int_equal(listener_stats_of(door.listener).refused, i);
        fd_close(&peer);
    }
    assert_int_equal(door.count, 0);
    assert_int_equal(listener_stats_of(door.listener).open, 0);
    listener_free(door.listener);
    event_base_free(base);
}

static void listener_survives_without_descriptors(void **state)
{
    struct event_base *base = event_base_new();
    struct door door = {0};
    struct listener_spec spec = {.name = "test", .max = 50, .accepted = on_accept, .arg = &door};
    struct rlimit before, tight;
    struct error err;
    int l = listener_bind_tcp("127.0.0.1", 0, &err), peers[3];
    uint16_t port = socket_port(l);
    int64_t start;

    (void)state;
    door.listener = listener_new(base, l, &spec);
    for (int i = 0; i < 3; i++)
        peers[i] = knock(port);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight = before;
    tight.rlim_cur = (rlim_t)peers[2] + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    event_base_loop(base, EVLOOP_NONBLOCK);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(door.count, 0);
    assert_int_equal(listener_stats_of(door.listener).shed, 1);
    start = clock_mono_ms();
    while (door.count < 2 && clock_mono_ms() - start < 2000)
        event_base_loop(base, EVLOOP_NONBLOCK);
    assert_int_equal(door.count, 2);
    assert_true(clock_mono_ms() - start >= 50);
    listener_free(door.listener);
    for (int i = 0; i < 3; i++)
        fd_close(&peers[i]);
    fd_close(&door.fds[0]);
    fd_close(&door.fds[1]);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_both_ways),
        cmocka_unit_test(half_close_keeps_the_other_direction),
        cmocka_unit_test(slow_reader_holds_back_the_writer),
        cmocka_unit_test(reset_is_passed_on_as_a_reset),
        cmocka_unit_test(whole_link_ends_with_the_other_side),
        cmocka_unit_test(closed_whole_link_is_no_reset),
        cmocka_unit_test(idle_half_closed_pair_is_dropped),
        cmocka_unit_test(seeded_bytes_come_first),
        cmocka_unit_test(seeded_bytes_need_no_wake_up),
        cmocka_unit_test(full_listener_pauses_and_resumes),
        cmocka_unit_test(unwelcome_peer_is_closed_and_counted),
        cmocka_unit_test(listener_survives_without_descriptors),
    };

    return cmocka_run_group_tests_name("relay", tests, NULL, NULL);
}
