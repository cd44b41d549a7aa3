#include "unit.h"

#include "codec/cbor.h"

static void test_written_form_is_shortest(void **state)
{
    AUTO_BUF struct buf out = BUF(1000);
    AUTO_BUF struct buf want = {0};
    struct cbor_writer w = {.out = &out};

    (void)state;
    cbor_put_map(&w, 2);
    cbor_put_uint(&w, 1);
    cbor_put_int(&w, -35);
    cbor_put_cstr(&w, "a");
    cbor_put_array(&w, 6);
    cbor_put_uint(&w, 23);
    cbor_put_uint(&w, 24);
    cbor_put_uint(&w, 0x100);
    cbor_put_uint(&w, 0x10000);
    cbor_put_uint(&w, 0x100000000);
    cbor_put_bytes(&w, slice_str("xy"));
    assert_false(w.failed);
    hex_slice(&want, "a2013822616186171818190100"
                     "1a000100001b0000000100000000427879");
    assert_true(slice_equal(buf_slice(&out), buf_slice(&want)));
}

static void test_writer_stays_failed(void **state)
{
    AUTO_BUF struct buf out = BUF(4);
    struct cbor_writer w = {.out = &out};

    (void)state;
    cbor_put_cstr(&w, "too long");
    cbor_put_uint(&w, 1);
    assert_true(w.failed);
    assert_true(out.len <= 4);
}

static void test_malformed_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "18",
        "1c",
        "1f",
        "41",
        "5f4100ff",
        "7f6161ff",
        "61ff",
        "81",
        "9f00",
        "a1",
        "a100",
        "bf00ff",
        "bf01",
        "a201000100",
        "a2010018010000",
        "a180f6",
        "f7",
        "f90000",
        "fb0000000000000000",
        "f814",
        "ff",
        "0000",
        "c0",
        "5b7fffffffffffffff00",
        "9b00000000ffffffff",
        "8181818181818181818100",
    };
    struct cbor_item item;
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_BUF struct buf b = {0};

        if (cbor_parse(hex_slice(&b, bad[i]), &item, &err) == 0)
            fail_msg("accepted %s", bad[i]);
    }
}

static void test_maps_are_read_by_key(void **state)
{
    AUTO_BUF struct buf b = {0};
    struct cbor_item map, v, element;
    struct cbor_iter it;
    struct error err = {0};

    (void)state;
    /* {_ "a": [_ 1, -2], 3: h'00', "n": null}, the 1 written in four bytes */
    assert_ok(cbor_parse(hex_slice(&b, "bf61619f1a0000000121ff034100616ef6ff"), &map, &err));
    assert_true(map.indefinite);
    assert_int_equal(map.n, 3);
    assert_true(cbor_map_get(&map, "a", &v));
    assert_int_equal(v.n, 2);
    it = cbor_iter_of(&v);
    assert_true(cbor_next(&it, &element));
    assert_int_equal(element.type, CBOR_UINT);
    assert_int_equal(element.n, 1);
    assert_true(cbor_next(&it, &element));
    assert_int_equal(element.type, CBOR_NINT);
    assert_int_equal(element.n, 1);
    assert_false(cbor_next(&it, &element));
    assert_true(cbor_map_get_uint(&map, 3, &v));
    assert_int_equal(v.str.len, 1);
    assert_true(cbor_map_get(&map, "n", &v));
    assert_int_equal(v.type, CBOR_NULL);
    assert_false(cbor_map_get(&map, "b", &v));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_form_is_shortest),
        cmocka_unit_test(test_writer_stays_failed),
        cmocka_unit_test(test_malformed_is_refused),
        cmocka_unit_test(test_maps_are_read_by_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
