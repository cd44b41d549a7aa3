#include "codec/json.h"

#include "unit.h"

static struct error err;

/* The code of capsule-api 2.4, or "" when the text is accepted. */
static const char *code_of(struct slice text)
{
    AUTO_JSON json_t *root = NULL;
    enum json_problem problem;

    if (json_read_object(text, &root, &problem, &err) == 0)
        return "";
    return json_problem_code(problem);
}

static void accepts_and_refuses(void **state)
{
    static const struct {
        const char *text, *code;
    } rows[] = {
        {"{}", ""},
        {" \t\r\n{\"a\": [1, 2.5e1, true, null, \"x\"]} \n", ""},
        {"{\"a\":\"\\u0000\\u001f\\ud83d\\ude00/\\/\"}", ""},
        {"{\"a\":18446744073709551615}", ""},
        {"", "invalid_json"},
        {" ", "invalid_json"},
        {"{", "invalid_json"},
        {"{}x", "invalid_json"},
        {"{}{}", "invalid_json"},
        {"{\"a\":1,}", "invalid_json"},
        {"[1,]", "invalid_json"},
        {"{a:1}", "invalid_json"},
        {"{'a':1}", "invalid_json"},
        {"{/**/}", "invalid_json"},
        {"{\"a\":01}", "invalid_json"},
        {"{\"a\":+1}", "invalid_json"},
        {"{\"a\":.5}", "invalid_json"},
        {"{\"a\":NaN}", "invalid_json"},
        {"{\"a\":TRUE}", "invalid_json"},
        {"{\"a\":\"\x01\"}", "invalid_json"},
        {"{\"a\":\"\\x\"}", "invalid_json"},
        {"{\"a\":\"\\ud800\"}", "invalid_json"},
        {"{\"a\":\"\\udc00x\"}", "invalid_json"},
        {"{\"a\":\"\\ud800\\u0041\"}", "invalid_json"},
        {"{\"a\":\"\xff\"}", "invalid_json"},
        {"{\"a\":\"\xed\xa0\x80\"}", "invalid_json"},
        {"\xef\xbb\xbf{}", "invalid_json"},
        {"[]", "invalid_type"},
        {"\"x\"", "invalid_type"},
        {"1", "invalid_type"},
        {"null", "invalid_type"},
        {"{\"a\":1,\"a\":2}", "duplicate_field"},
        {"{\"a\":1,\"\\u0061\":2}", "duplicate_field"},
        {"{\"u\":{\"x\":[{\"a\":1,\"a\":2}]}}", "duplicate_field"},
        {"{\"a\":1e999}", "invalid_value"},
        {"{\"a\":-1e999}", "invalid_value"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *got = code_of(slice_str(rows[i].text));

        if (strcmp(got, rows[i].code) != 0)
            fail_msg("%s: \"%s\", want \"%s\" (%s)", rows[i].text, got, rows[i].code, err.msg);
    }
    assert_string_equal(code_of(slice_of("{}\0", 3)), "invalid_json");
    assert_string_equal(code_of(slice_of(NULL, 0)), "invalid_json");
}

static const char *nested(int levels)
{
    AUTO_BUF struct buf b = BUF(10000);
    int rc = buf_append_str(&b, "{\"[[[{{{\\\"[[[\":0,\"a\":");

    for (int i = 1; i < levels; i++)
        rc |= buf_append_byte(&b, '[');
    rc |= buf_append_str(&b, levels == 1 ? "0" : "");
    for (int i = 1; i < levels; i++)
        rc |= buf_append_byte(&b, ']');
    rc |= buf_append_byte(&b, '}');
    assert_int_equal(rc, 0);
    return code_of(buf_slice(&b));
}

static void nesting_and_size_are_bounded(void **state)
{
    AUTO_BUF struct buf b = BUF(1 << 20);
    int rc = buf_append_str(&b, "{\"a\":[0");

    (void)state;
    assert_string_equal(nested(1), "");
    assert_string_equal(nested(127), "");
    assert_string_equal(nested(128), "invalid_json");
    for (int i = 0; i < JSON_VALUES_MAX; i++)
        rc |= buf_append_str(&b, ",0");
    rc |= buf_append_str(&b, "]}");
    assert_int_equal(rc, 0);
    assert_string_equal(code_of(buf_slice(&b)), "invalid_json");
}

static void members_keep_their_spelling(void **state)
{
    static const char text[] =
        " { \"n\" : 18446744073709551615 , \"e\":1e2,\"s\" : \"a\\\"b,}\" ,\"o\": {\"x\" : [ 1 , "
        "{ } ] } , \"\\u0065th_addr\":-0 }";
    struct json_members it = json_members_of(slice_str(text));
    struct slice name, value;
    uint64_t n;

    (void)state;
    assert_string_equal(code_of(slice_str(text)), "");
    assert_true(json_members_next(&it, &name, &value));
    assert_true(slice_equal_str(value, "18446744073709551615"));
    assert_true(json_members_next(&it, &name, &value));
    assert_true(slice_equal_str(value, "1e2"));
    assert_true(json_members_next(&it, &name, &value));
    assert_true(slice_equal_str(value, "\"a\\\"b,}\""));
    assert_true(json_members_next(&it, &name, &value));
    assert_true(slice_equal_str(value, "{\"x\" : [ 1 , { } ] }"));
    assert_true(json_members_next(&it, &name, &value));
    assert_true(json_name_is(name, "eth_addr"));
    assert_false(json_name_is(name, "eth_add"));
    assert_false(json_name_is(name, "eth_addrs"));
    assert_true(slice_equal_str(value, "-0"));
    assert_false(json_members_next(&it, &name, &value));
    assert_int_equal(json_member_u64(slice_str(text), "n", UINT64_MAX, &n), 1);
    assert_true(n == UINT64_MAX);
    assert_int_equal(json_member_u64(slice_str(text), "n", UINT32_MAX, &n), -1);
    assert_int_equal(json_member_u64(slice_str(text), "e", UINT32_MAX, &n), -1);
    assert_int_equal(json_member_u64(slice_str(text), "q", UINT32_MAX, &n), 0);
}

static void writes_compactly(void **state)
{
    AUTO_BUF struct buf b = BUF(1000);
    struct json_writer w = {.out = &b};

    (void)state;
    json_put_object(&w);
    json_put_key(&w, "s");
    json_put_text(&w, slice_of("\"\\/\b\f\n\r\t\0\x1f\x7f\xc3\xa4", 13));
    json_put_key(&w, "a");
    json_put_array(&w);
    json_put_uint(&w, UINT64_MAX);
    json_put_int(&w, INT64_MIN);
    json_put_object(&w);
    json_put_object_end(&w);
    json_put_bool(&w, true);
    json_put_null(&w);
    json_put_array_end(&w);
    json_put_key(&w, "r");
    json_put_source(&w, slice_str("{ \"\\u0041\\/\\ud83d\\ude00\\u001F\" : [ 1.50 ,\n-0 ] }"));
    json_put_source_key(&w, slice_str("k\\u000a"));
    json_put_cstr(&w, "");
    json_put_key(&w, "hex");
    json_put_hex(&w, "0x", slice_of("\x00\xab", 2));
    json_put_key(&w, "bare");
    json_put_hex(&w, "", slice_of("\x10", 1));
    json_put_key(&w, "base64");
    json_put_base64(&w, slice_of("\xfb\xff", 2));
    json_put_object_end(&w);
    assert_false(w.failed);
    assert_string_equal(buf_cstr(&b),
                        "{\"s\":\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\xc3\xa4\","
                        "\"a\":[18446744073709551615,-9223372036854775808,{},true,null],"
                        "\"r\":{\"A/\xf0\x9f\x98\x80\\u001f\":[1.50,-0]},\"k\\n\":\"\","
                        "\"hex\":\"0x00ab\",\"bare\":\"10\",\"base64\":\"+/8=\"}");
    assert_string_equal(code_of(buf_slice(&b)), "");
}

static void full_after(size_t max, void (*put)(struct json_writer *w))
{
    AUTO_BUF struct buf b = BUF(max);
    struct json_writer w = {.out = &b};

    put(&w);
    assert_true(w.failed);
    assert_true(b.len <= max);
}

static void put_hex(struct json_writer *w)
{
    json_put_hex(w, "0x", slice_of("\1\2", 2)); /* 8 bytes */
}

static void put_base64(struct json_writer *w)
{
    json_put_base64(w, slice_of("\1\2\3\4", 4)); /* 10 bytes */
}

static void hex_and_base64_may_not_fit(void **state)
{
    (void)state;
    for (size_t max = 0; max < 8; max++)
        full_after(max, put_hex);
    for (size_t max = 0; max < 10; max++)
        full_after(max, put_base64);
}

static void a_full_buffer_is_noticed(void **state)
{
    AUTO_BUF struct buf b = BUF(5);
    struct json_writer w = {.out = &b};

    (void)state;
    json_put_cstr(&w, "longer");
    assert_true(w.failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_and_refuses),
        cmocka_unit_test(nesting_and_size_are_bounded),
        cmocka_unit_test(members_keep_their_spelling),
        cmocka_unit_test(writes_compactly),
        cmocka_unit_test(a_full_buffer_is_noticed),
        cmocka_unit_test(hex_and_base64_may_not_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
