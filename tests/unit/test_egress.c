/* The connect exchange's frames, and the order in which the host tries addresses. */
#include "codec/egress_frame.h"
#include "host/egress_connect.h"

#include "unit.h"

#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static struct error err;

static void frames_are_the_spec_s_bytes(void **state)
{
    AUTO_BUF struct buf out = BUF(EGRESS_FRAME_MAX + 4);
    struct egress_reply ok = {.ok = true};

    (void)state;
    assert_int_equal(egress_request_write("example.com", 443, &out), 0);
    assert_int_equal(out.len, 37);
    assert_memory_equal(out.ptr, "\x21\0\0\0{\"host\":\"example.com\",\"port\":443}", 37);
    buf_clear(&out);
    assert_int_equal(egress_reply_write(&ok, &out), 0);
    assert_int_equal(out.len, 8);
    assert_memory_equal(out.ptr, "\4\0\0\0\"Ok\"", 8);
}

static void frame_lengths_are_bounded(void **state)
{
    size_t len;

    (void)state;
    assert_int_equal(egress_frame_length(slice_of("\x21\0\0", 3), &len, &err), 0);
    assert_int_equal(egress_frame_length(slice_of("\x21\0\0\0", 4), &len, &err), 1);
    assert_int_equal(len, 33);
    assert_int_equal(egress_frame_length(slice_of("\0\x10\0\0", 4), &len, &err), 1);
    assert_int_equal(egress_frame_length(slice_of("\1\x10\0\0", 4), &len, &err), -1);
    assert_int_equal(egress_frame_length(slice_of("\0\0\0\0", 4), &len, &err), -1);
    assert_int_equal(egress_frame_length(slice_of("\xff\xff\xff\xff", 4), &len, &err), -1);
}

static void requests_are_checked(void **state)
{
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "\"Ok\"",
        "{\"host\":\"a\"}",
        "{\"port\":1}",
        "{\"host\":1,\"port\":1}",
        "{\"host\":\"a\",\"port\":65536}",
        "{\"host\":\"a\",\"port\":-1}",
        "{\"host\":\"a\",\"port\":1.0}",
        "{\"host\":\"a\",\"port\":\"1\"}",
        "{\"host\":\"a\\u0000b\",\"port\":1}",
        "{\"host\":\"a\",\"host\":\"b\",\"port\":1}",
    };
    struct egress_request r;

    (void)state;
    assert_ok(
        egress_request_parse(slice_str("{\"x\":[],\"port\":80,\"host\":\"[::1]\"}"), &r, &err));
    assert_string_equal(r.host, "[::1]");
    assert_int_equal(r.port, 80);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (egress_request_parse(slice_str(bad[i]), &r, &err) == 0)
            fail_msg("%s was accepted", bad[i]);
}

static void replies_survive_the_way(void **state)
{
    AUTO_BUF struct buf out = BUF(EGRESS_FRAME_MAX + 4);
    struct egress_reply r = {.os_code = 111, .kind = EGRESS_REFUSED, .message = "Connection \"x\""};
    struct egress_reply got;

    (void)state;
    assert_int_equal(egress_reply_write(&r, &out), 0);
    assert_ok(egress_reply_parse(slice_of(out.ptr + 4, out.len - 4), &got, &err));
    assert_false(got.ok);
    assert_int_equal(got.os_code, 111);
    assert_int_equal(got.kind, EGRESS_REFUSED);
    assert_string_equal(got.message, "Connection \"x\"");
    /* the reference sends no kind */
    assert_ok(egress_reply_parse(
        slice_str("{\"Err\":{\"os_code\":110,\"message\":\"a\\nb\\u001b[1m\"}}"), &got, &err));
    assert_int_equal(got.kind, EGRESS_TIMEOUT);
    assert_string_equal(got.message, "a?b?[1m");
    assert_int_equal(egress_reply_parse(slice_str("\"ok\""), &got, &err), -1);
    assert_int_equal(egress_reply_parse(slice_str("{\"Err\":1}"), &got, &err), -1);
    assert_int_equal(egress_reply_parse(slice_str("{\"Ok\":{}}"), &got, &err), -1);
}

/* Everything the host may say is a full frame. */
static void the_longest_reply_fits(void **state)
{
    AUTO_BUF struct buf out = BUF(EGRESS_FRAME_MAX + 4);
    struct egress_reply r = {.kind = EGRESS_POLICY, .os_code = 13};

    (void)state;
    memset(r.message, 1, EGRESS_MESSAGE_MAX);
    assert_int_equal(egress_reply_write(&r, &out), 0);
}

static void addresses_are_ordered(void **state)
{
    /* 2001:db8::/32 and 192.0.2.0/24 are for documentation; a route may or may not exist. */
    static const char *const texts[] = {"127.0.0.2", "127.0.0.1", "::1"};
    struct ip_addr addrs[3];
    char text[IP_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(ip_parse(slice_str(texts[i]), &addrs[i]), 0);
    connect_order(addrs, 2);
    assert_string_equal(ip_format(&addrs[0], text), "127.0.0.2");
    connect_order(addrs, 3);
    if (addrs[0].family == 6) {
        assert_string_equal(ip_format(&addrs[1], text), "127.0.0.2");
        assert_string_equal(ip_format(&addrs[2], text), "127.0.0.1");
    }
}

struct outcome {
    struct event_base *base;
    int fd, sys;
};

static void on_done(void *arg, int fd, int sys)
{
    struct outcome *o = arg;

    o->fd = fd;
    o->sys = sys;
    event_base_loopbreak(o->base);
}

static void a_dead_address_does_not_hold_up_a_live_one(void **state)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct outcome o = {.base = event_base_new()};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct ip_addr addrs[3] = {ip_from_u32(0x7f000002), ip_from_u32(0x7f000003),
                               ip_from_u32(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);

    (void)state;
    assert_int_equal(bind(listener, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&sa, &len), 0);
    (void)connect_start(o.base, addrs, 3, ntohs(sa.sin_port), on_done, &o);
    event_base_dispatch(o.base);
    assert_true(o.fd >= 0);
    close(o.fd);
    (void)connect_start(o.base, addrs, 2, ntohs(sa.sin_port), on_done, &o);
    event_base_dispatch(o.base);
    assert_int_equal(o.fd, -1);
    assert_int_equal(o.sys, ECONNREFUSED);
    connect_cancel(connect_start(o.base, addrs, 3, ntohs(sa.sin_port), on_done, &o));
    close(listener);
    event_base_free(o.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_the_spec_s_bytes),
        cmocka_unit_test(frame_lengths_are_bounded),
        cmocka_unit_test(requests_are_checked),
        cmocka_unit_test(replies_survive_the_way),
        cmocka_unit_test(the_longest_reply_fits),
        cmocka_unit_test(addresses_are_ordered),
        cmocka_unit_test(a_dead_address_does_not_hold_up_a_live_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
