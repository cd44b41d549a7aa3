#include "unit.h"

#include "base/strv.h"
#include "codec/launch.h"

#include <stdio.h>

#define GOOD                                                                                       \
    "{\"argv\":[\"/bin/sh\",\"-c\",\"a\\nb\",\"\"],\"env\":[\"A=1\",\"B=\"],\"cwd\":\"/"           \
    "srv\",\"user\":\"7:8\"}"

static void test_round_trip(void **state)
{
    AUTO_LAUNCH struct launch l = {0};
    AUTO_BUF struct buf text = BUF(LAUNCH_JSON_MAX);
    struct error err = {0};

    (void)state;
    assert_ok(launch_from_json(slice_str(GOOD), &l, &err));
    assert_int_equal(strv_len(l.argv), 4);
    assert_string_equal(l.argv[2], "a\nb");
    assert_string_equal(l.argv[3], "");
    assert_string_equal(l.env[1], "B=");
    assert_string_equal(l.cwd, "/srv");
    assert_string_equal(l.user, "7:8");
    assert_ok(launch_to_json(&l, &text, &err));
    assert_string_equal(buf_cstr(&text), GOOD);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *json, *word;
    } bad[] = {
        {"", "launch file"},
        {"[]", "object"},
        {"{}", "object"},
        {"{\"argv\":[\"x\"],\"env\":[],\"cwd\":\"/\"}", "object"},
        {"{\"argv\":[\"x\"],\"env\":[],\"cwd\":\"/\",\"user\":\"\",\"more\":1}", "object"},
        {"{\"argv\":[\"x\"],\"env\":[],\"cwd\":\"/\",\"user\":\"\",\"user\":\"\"}", "duplicate"},
        {"{\"argv\":[\"x\"],\"env\":[],\"cwd\":\"/\",\"user\":\"\"} x", "end of file"},
        {"{\"argv\":[],\"env\":[],\"cwd\":\"/\",\"user\":\"\"}", "no program"},
        {"{\"argv\":[\"\"],\"env\":[],\"cwd\":\"/\",\"user\":\"\"}", "empty name"},
        {"{\"argv\":[1],\"env\":[],\"cwd\":\"/\",\"user\":\"\"}", "list of strings"},
        {"{\"argv\":[\"x\"],\"env\":{},\"cwd\":\"/\",\"user\":\"\"}", "list of strings"},
        {"{\"argv\":[\"x\"],\"env\":[\"A\"],\"cwd\":\"/\",\"user\":\"\"}", "NAME=VALUE"},
        {"{\"argv\":[\"x\"],\"env\":[\"=1\"],\"cwd\":\"/\",\"user\":\"\"}", "NAME=VALUE"},
        {"{\"argv\":[\"x\"],\"env\":[],\"cwd\":\"srv\",\"user\":\"\"}", "absolute"},
        {"{\"argv\":[\"x\"],\"env\":[],\"cwd\":7,\"user\":\"\"}", "strings"},
        {"{\"argv\":[\"a\\u0000b\"],\"env\":[],\"cwd\":\"/\",\"user\":\"\"}", "launch file"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct launch l = {0};
        struct error err = {0};

        assert_int_equal(launch_from_json(slice_str(bad[i].json), &l, &err), -1);
        assert_null(l.argv);
        if (!strstr(err.msg, bad[i].word))
            fail_msg("%s: %s", bad[i].json, err.msg);
    }
}

static void test_bounds(void **state)
{
    AUTO_LAUNCH struct launch l = {0};
    AUTO_BUF struct buf text = BUF(16 << 20);
    struct error err = {0};
    char *longest = xmalloc(LAUNCH_STRING_MAX + 2);

    (void)state;
    memset(longest, 'x', LAUNCH_STRING_MAX + 1);
    longest[LAUNCH_STRING_MAX + 1] = '\0';
    strv_add(&l.argv, longest);
    l.cwd = xstrdup("/");
    l.user = xstrdup("");
    assert_int_equal(launch_to_json(&l, &text, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    l.argv[0][LAUNCH_STRING_MAX] = '\0';
    assert_ok(launch_to_json(&l, &text, &err));
    free(longest);
    strv_add(&l.argv, "\xff");
    assert_int_equal(launch_to_json(&l, &text, &err), -1);
    assert_non_null(strstr(err.msg, "argument 2 is not UTF-8"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
