/* The text encodings of request members: spec/capsule-api.md section 2.3. */
#include "unit.h"
#include "vectors.h"

#include "api/encoding.h"

static void test_scalar_vectors(void **state)
{
    json_t *root = vectors_load("eth.json"), *scalars = json_object_get(root, "scalar_parsing");
    json_t *row;
    size_t at;

    (void)state;
    json_array_foreach (json_object_get(scalars, "accept"), at, row) {
        AUTO_BUF struct buf got = BUF(64), want = {0};

        assert_null(hex_scalar_decode(slice_str(vectors_str(row, "input")), &got));
        assert_true(slice_equal(buf_slice(&got), vectors_hex(row, "minimal_bytes", &want)));
    }
    assert_true(at > 5);
    json_array_foreach (json_object_get(scalars, "reject"), at, row) {
        AUTO_BUF struct buf got = BUF(64);

        assert_non_null(hex_scalar_decode(slice_str(json_string_value(row)), &got));
        assert_int_equal(got.len, 0);
    }
    assert_true(at > 5);
    json_decref(root);
}

struct decoded {
    const char *text;
    const char *strict, *data, *scalar; /* the bytes in hex; NULL: refused */
};

static void check(const char *(*decode)(struct slice, struct buf *), const char *text,
                  const char *want)
{
    AUTO_BUF struct buf got = BUF(8), bytes = {0};
    const char *problem;

    /* something stands there already, and stays */
    assert_int_equal(buf_append_byte(&got, 0xaa), 0);
    problem = decode(slice_str(text), &got);
    if ((problem == NULL) != (want != NULL))
        fail_msg("\"%s\": %s", text, problem ? problem : "was accepted");
    assert_int_equal(got.ptr[0], 0xaa);
    if (want)
        assert_true(slice_equal(slice_of(got.ptr + 1, got.len - 1), hex_slice(&bytes, want)));
    else
        assert_int_equal(got.len, 1);
}

static void test_three_encodings(void **state)
{
    static const struct decoded cases[] = {
        {"", "", "", ""},
        {"0x", "", "", ""},
        {"0xAb01", "ab01", "ab01", "ab01"},
        {"ab01", "ab01", "ab01", "ab01"},
        {"0x0001", "0001", "0001", "01"},
        {"0x1", NULL, NULL, "01"},
        {"1", NULL, NULL, "01"},
        {"0", NULL, NULL, ""},
        {" 0xab\n", NULL, "ab", "ab"},
        {"\t\v\f\r ab \n", NULL, "ab", "ab"},
        {"   ", NULL, "", ""},
        {"0xa b", NULL, NULL, NULL},
        {"0x ab", NULL, NULL, NULL},
        {"0Xab", NULL, NULL, NULL},
        {"0x0xab", NULL, NULL, NULL},
        {"xab", NULL, NULL, NULL},
        {"gg", NULL, NULL, NULL},
        {"abg", NULL, NULL, NULL},
        {"-1", NULL, NULL, NULL},
        {"\xc2\xa0"
         "ab",
         NULL, NULL, NULL},
        {"11223344556677", "11223344556677", "11223344556677", "11223344556677"},
        {"1122334455667788", NULL, NULL, NULL}, /* longer than the buf */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        check(hex_strict_decode, cases[i].text, cases[i].strict);
        check(hex_data_decode, cases[i].text, cases[i].data);
        check(hex_scalar_decode, cases[i].text, cases[i].scalar);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalar_vectors),
        cmocka_unit_test(test_three_encodings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
