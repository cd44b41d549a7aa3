#include "unit.h"

#include "vsock/clockproto.h"

#define MS  INT64_C(1000000)
#define SEC INT64_C(1000000000)

/* spec/wire-protocols.md section 10, item 6. */
static void offset_and_round_trip(void **state)
{
    struct clock_sample s = {100 * MS, 160 * MS, 170 * MS, 120 * MS};
    struct clock_sample far = {INT64_MIN, INT64_MAX, INT64_MAX, INT64_MIN};

    (void)state;
    assert_int_equal(clock_offset(&s), 55 * MS);
    assert_int_equal(clock_rtt(&s), 10 * MS);
    assert_int_equal(clock_offset(&far), INT64_MAX);
}

static void bad_samples_are_discarded(void **state)
{
    const int64_t t = CLOCK_FLOOR_NS + 1000 * SEC;
    struct clock_sample s = {t, t + 1, t + 2, t + 50 * MS};

    (void)state;
    assert_true(clock_sample_usable(&s, CLOCK_RTT_LATER));
    s.t4 = t + 101 * MS;
    assert_false(clock_sample_usable(&s, CLOCK_RTT_LATER));
    assert_true(clock_sample_usable(&s, CLOCK_RTT_FIRST));
    s.t4 = t - 1; /* negative round trip */
    assert_false(clock_sample_usable(&s, CLOCK_RTT_FIRST));
    s = (struct clock_sample){t, t + 2, t + 1, t + 50 * MS};
    assert_false(clock_sample_usable(&s, CLOCK_RTT_FIRST));
    s = (struct clock_sample){t, CLOCK_FLOOR_NS - 1, CLOCK_FLOOR_NS, t + MS};
    assert_false(clock_sample_usable(&s, CLOCK_RTT_FIRST));
}

static void small_offsets_slew_and_large_ones_step(void **state)
{
    (void)state;
    assert_int_equal(clock_decide(999999, true, 0), CLOCK_KEEP);
    assert_int_equal(clock_decide(-MS, true, 0), CLOCK_STEP);
    assert_int_equal(clock_decide(-MS, false, 0), CLOCK_SLEW);
    assert_int_equal(clock_decide(499 * MS, false, 0), CLOCK_SLEW);
    assert_int_equal(clock_decide(500 * MS, false, 0), CLOCK_STEP);
    assert_int_equal(clock_decide(-60 * SEC, false, 60), CLOCK_REFUSE);
    assert_int_equal(clock_decide(-60 * SEC, true, 60), CLOCK_STEP);
    assert_int_equal(clock_decide(INT64_MIN, false, 0), CLOCK_STEP);
}

static int parse(const char *line, struct clock_sample *s)
{
    struct error err;

    return clock_parse_reply(slice_str(line), s, &err);
}

static void replies_are_read_strictly(void **state)
{
    AUTO_BUF struct buf b = BUF(CLOCK_REPLY_MAX + 1);
    struct clock_sample s = {.t1 = 7, .t4 = 9};
    struct error err;

    (void)state;
    clock_format_reply(1800000000 * SEC + 5, 1800000000 * SEC + 999999999, &b);
    assert_string_equal(
        buf_cstr(&b), "{\"server_receive_secs\":1800000000,\"server_receive_nanos\":5,"
                      "\"server_transmit_secs\":1800000000,\"server_transmit_nanos\":999999999}\n");
    assert_ok(clock_parse_reply(slice_of(b.ptr, b.len - 1), &s, &err));
    assert_int_equal(s.t2, 1800000000 * SEC + 5);
    assert_int_equal(s.t3, 1800000000 * SEC + 999999999);
    assert_int_equal(s.t1, 7);
    assert_int_equal(parse("{\"server_receive_secs\":1,\"server_receive_nanos\":1000000000,"
                           "\"server_transmit_secs\":1,\"server_transmit_nanos\":0}",
                           &s),
                     -1);
    assert_int_equal(parse("{\"server_receive_secs\":-1,\"server_receive_nanos\":0,"
                           "\"server_transmit_secs\":1,\"server_transmit_nanos\":0}",
                           &s),
                     -1);
    assert_int_equal(
        parse("{\"server_receive_secs\":9223372036854775807,\"server_receive_nanos\":0,"
              "\"server_transmit_secs\":1,\"server_transmit_nanos\":0}",
              &s),
        -1);
    assert_int_equal(parse("{\"server_receive_secs\":1.5,\"server_receive_nanos\":0,"
                           "\"server_transmit_secs\":1,\"server_transmit_nanos\":0}",
                           &s),
                     -1);
    assert_int_equal(parse("{\"server_receive_secs\":1,\"server_receive_nanos\":0}", &s), -1);
    assert_int_equal(parse("[1]", &s), -1);
    assert_int_equal(parse("", &s), -1);
    assert_int_equal(s.t2, 1800000000 * SEC + 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offset_and_round_trip),
        cmocka_unit_test(bad_samples_are_discarded),
        cmocka_unit_test(small_offsets_slew_and_large_ones_step),
        cmocka_unit_test(replies_are_read_strictly),
    };

    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
