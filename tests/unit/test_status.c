#include "unit.h"

#include "config.h"
#include "vsock/log2.h"
#include "vsock/status.h"

static const char *format(struct buf *b, const struct status *s)
{
    buf_free(b);
    *b = BUF(2048);
    status_format(s, b);
    return buf_cstr(b);
}

/* spec/wire-protocols.md section 2.3, byte for byte. */
static void lines_are_as_specified(void **state)
{
    AUTO_BUF struct buf b = BUF(0);
    struct status s = {
        .kind = STATUS_RUNNING, .phase = PHASE_APP, .can_stop = true, .has_log2 = true};

    (void)state;
    assert_string_equal(format(&b, &s),
                        "{\"status\":\"running\",\"phase\":\"app\",\"caps\":[\"stop\",\"log2\"],"
                        "\"version\":\"" CAPSULE_VERSION "\"}\n");
    s = (struct status){.kind = STATUS_EXITED, .code = 255};
    assert_string_equal(format(&b, &s), "{\"status\":\"exited\",\"code\":255}\n");
    s = (struct status){.kind = STATUS_SIGNALED, .signal = 15};
    assert_string_equal(
        format(&b, &s),
        "{\"status\":\"signaled\",\"signal\":15,\"name\":\"SIGTERM\",\"core\":false}\n");
}

static void fatal_text_is_escaped_and_cut(void **state)
{
    static const char *const nasty[] = {"plain", "quote \" back \\ newline \n tab \t",
                                        "\x01\x02\x7f", "bad \xff utf-8 \xc3", "\xe2\x82\xac euro"};
    AUTO_BUF struct buf b = BUF(0);
    struct status s = {.kind = STATUS_FATAL}, back;
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(nasty); i++) {
        strcpy(s.error, nasty[i]);
        format(&b, &s);
        assert_ok(status_parse(slice_of(b.ptr, b.len - 1), &back, &err));
        assert_int_equal(back.kind, STATUS_FATAL);
        assert_true(utf8_valid(slice_str(back.error)));
    }
    assert_string_equal(back.error, nasty[4]);
    strcpy(s.error, "bad \xff utf-8 \xc3");
    format(&b, &s);
    assert_ok(status_parse(slice_of(b.ptr, b.len - 1), &back, &err));
    assert_string_equal(back.error, "bad ? utf-8 ?");
    for (int fill = 1; fill < 256; fill += 13) {
        memset(s.error, fill, sizeof(s.error) - 1);
        format(&b, &s);
        assert_in_range(b.len, 100, STATUS_LINE_SENT);
        assert_int_equal(memchr(b.ptr, '\n', b.len) == b.ptr + b.len - 1, 1);
        assert_ok(status_parse(slice_of(b.ptr, b.len - 1), &back, &err));
    }
}

static int parse(const char *line, struct status *out)
{
    struct error err;

    return status_parse(slice_str(line), out, &err);
}

/* spec/wire-protocols.md section 10, item 4. */
static void host_reads_both_spellings(void **state)
{
    struct status s;

    (void)state;
    assert_int_equal(parse("{ \"status\": \"running\" }", &s), 0);
    assert_int_equal(s.kind, STATUS_RUNNING);
    assert_false(s.can_stop);
    assert_int_equal(parse("{ \"status\": \"exited\", \"code\": 3 }", &s), 0);
    assert_int_equal(s.code, 3);
    assert_int_equal(parse("{\"code\":-1,\"x\":[1],\"status\":\"exited\"}", &s), 0);
    assert_int_equal(s.code, -1);
    assert_int_equal(parse("{ \"status\": \"signaled\", \"signal\": \"SIGTERM\" }", &s), 0);
    assert_int_equal(s.signal, 15);
    assert_int_equal(parse("{\"status\":\"signaled\",\"signal\":15}", &s), 0);
    assert_int_equal(s.signal, 15);
    assert_int_equal(parse("{\"status\":\"signaled\",\"signal\":\"15\"}", &s), -1);
    assert_int_equal(parse("{\"status\":\"signaled\",\"signal\":0}", &s), -1);
    assert_int_equal(parse("{\"status\":\"signaled\",\"signal\":65}", &s), -1);
    assert_int_equal(parse("{\"status\":\"exited\",\"code\":2147483648}", &s), -1);
    assert_int_equal(parse("{\"status\":\"exited\",\"code\":1.0}", &s), -1);
    assert_int_equal(parse("{\"status\":\"exited\"}", &s), -1);
    assert_int_equal(parse("{\"status\":\"gone\"}", &s), -1);
    assert_int_equal(parse("{\"status\":\"exited\",\"code\":1} x", &s), -1);
    assert_int_equal(parse("[]", &s), -1);
    assert_int_equal(parse("", &s), -1);
}

static void line_of_1024_bytes_is_the_longest(void **state)
{
    AUTO_BUF struct buf b = BUF(2048);
    struct status s;
    struct error err;

    (void)state;
    assert_int_equal(buf_append_str(&b, "{\"status\":\"exited\",\"code\":1"), 0);
    while (b.len < STATUS_LINE_MAX - 1)
        assert_int_equal(buf_append_byte(&b, ' '), 0);
    assert_int_equal(buf_append_byte(&b, '}'), 0);
    assert_int_equal(b.len, 1024);
    assert_ok(status_parse(buf_slice(&b), &s, &err));
    assert_int_equal(buf_append_byte(&b, ' '), 0);
    assert_int_equal(status_parse(buf_slice(&b), &s, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
}

static void stop_command_is_strict(void **state)
{
    static const char *const bad[] = {"{\"cmd\":\"halt\"}",
                                      "{\"cmd\":\"stop\",\"grace_ms\":-1}",
                                      "{\"cmd\":\"stop\",\"grace_ms\":600001}",
                                      "{\"cmd\":\"stop\",\"grace_ms\":\"1\"}",
                                      "{}",
                                      "stop",
                                      "null",
                                      "{\"cmd\":\"stop\",\"cmd\":\"stop\"}"};
    AUTO_BUF struct buf b = BUF(STOP_LINE_MAX);
    struct host_command cmd;
    struct error err;

    (void)state;
    stop_format(10000, &b);
    assert_string_equal(buf_cstr(&b), "{\"cmd\":\"stop\",\"grace_ms\":10000}\n");
    assert_ok(host_command_parse(slice_of(b.ptr, b.len - 1), &cmd, &err));
    assert_true(cmd.has_grace);
    assert_int_equal(cmd.grace_ms, 10000);
    assert_ok(host_command_parse(slice_str("{\"cmd\":\"stats\"}"), &cmd, &err));
    assert_int_equal(cmd.kind, COMMAND_STATS);
    assert_ok(host_command_parse(slice_str("{\"cmd\":\"stop\"}"), &cmd, &err));
    assert_int_equal(cmd.kind, COMMAND_STOP);
    assert_false(cmd.has_grace);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(host_command_parse(slice_str(bad[i]), &cmd, &err), -1);
}

static void log_request_and_reply_agree(void **state)
{
    AUTO_BUF struct buf b = BUF(LOG2_LINE_MAX);
    uint64_t offset, dropped;
    struct error err;

    (void)state;
    log2_format_request(UINT64_C(9007199254740993), &b);
    assert_ok(log2_parse_request(slice_of(b.ptr, b.len - 1), &offset, &err));
    assert_int_equal(offset, UINT64_C(9007199254740993));
    assert_int_equal(log2_parse_request(slice_str("{\"offset\":-1}"), &offset, &err), -1);
    assert_int_equal(log2_parse_request(slice_str("{\"offset\":1,\"a\":2}"), &offset, &err), -1);
    assert_int_equal(log2_parse_request(slice_str("{\"offset\":1e3}"), &offset, &err), -1);
    buf_clear(&b);
    log2_format_reply(150, 50, &b);
    assert_ok(log2_parse_reply(slice_of(b.ptr, b.len - 1), 100, &offset, &dropped, &err));
    assert_int_equal(offset, 150);
    assert_int_equal(log2_parse_reply(slice_of(b.ptr, b.len - 1), 99, &offset, &dropped, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_as_specified),
        cmocka_unit_test(fatal_text_is_escaped_and_cut),
        cmocka_unit_test(host_reads_both_spellings),
        cmocka_unit_test(line_of_1024_bytes_is_the_longest),
        cmocka_unit_test(stop_command_is_strict),
        cmocka_unit_test(log_request_and_reply_agree),
    };

    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
