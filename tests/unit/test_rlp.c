/* RLP against tests/vectors/eth.json, and the edges that it leaves out. */
#include "unit.h"
#include "vectors.h"

#include "codec/rlp.h"
#include "crypto/keccak.h"

/* A vector's item: a hex string, or a list of items. */
static void encode(const json_t *item, struct buf *out)
{
    AUTO_BUF struct buf inner = BUF(1 << 20);
    json_t *child;
    size_t at;

    if (json_is_string(item)) {
        assert_int_equal(rlp_put_string(out, hex_slice(&inner, json_string_value(item) + 2)), 0);
        return;
    }
    json_array_foreach (item, at, child)
        encode(child, &inner);
    assert_int_equal(rlp_put_list_head(out, inner.len), 0);
    assert_int_equal(buf_append(out, inner.ptr, inner.len), 0);
}

/* The opposite; NULL when anything in it is not canonical. */
static json_t *decode(struct reader *r)
{
    struct slice content;
    struct reader inner;
    json_t *item;

    if (rlp_at_list(r)) {
        if (!rlp_read_list(r, &content))
            return NULL;
        item = json_array();
        inner = reader_of(content);
        while (reader_left(&inner) > 0) {
            if (json_array_append_new(item, decode(&inner)) < 0) {
                json_decref(item);
                return NULL;
            }
        }
        return item;
    }
    if (!rlp_read_string(r, &content))
        return NULL;
    char *hex = hex_encode_dup("0x", content);

    item = json_string(hex);
    free(hex);
    return item;
}

static json_t *decode_whole(struct slice bytes)
{
    struct reader r = reader_of(bytes);
    json_t *item = decode(&r);

    if (item && reader_left(&r) == 0)
        return item;
    json_decref(item);
    return NULL;
}

static void check_rlp_pattern(const json_t *row)
{
    AUTO_BUF struct buf encoded = BUF(1 << 20), want = {0};
    size_t len = (size_t)json_integer_value(json_object_get(row, "item_length"));
    uint8_t *item = xmalloc(len), digest[KECCAK256_LEN];
    struct slice content;
    struct reader r;

    for (size_t i = 0; i < len; i++)
        item[i] = (uint8_t)(i % 251);
    assert_int_equal(rlp_put_string(&encoded, slice_of(item, len)), 0);
    assert_int_equal(encoded.len, json_integer_value(json_object_get(row, "encoded_length")));
    assert_int_equal(encoded.len, rlp_string_size(slice_of(item, len)));
    keccak256_once(buf_slice(&encoded), digest);
    assert_true(slice_equal(slice_of(digest, sizeof(digest)),
                            vectors_hex(row, "encoded_keccak256", &want)));
    r = reader_of(buf_slice(&encoded));
    assert_true(rlp_read_string(&r, &content));
    assert_true(slice_equal(content, slice_of(item, len)));
    free(item);
}

static void test_vectors(void **state)
{
    json_t *root = vectors_load("eth.json"), *rlp = json_object_get(root, "rlp"), *row;
    size_t at;

    (void)state;
    json_array_foreach (json_object_get(rlp, "encode"), at, row) {
        AUTO_BUF struct buf encoded = BUF(1 << 20), want = {0};
        json_t *item = json_object_get(row, "item"), *back;

        if (!item) {
            check_rlp_pattern(row);
            continue;
        }
        encode(item, &encoded);
        assert_true(slice_equal(buf_slice(&encoded), vectors_hex(row, "encoded", &want)));
        back = decode_whole(buf_slice(&encoded));
        assert_true(json_equal(item, back));
        json_decref(back);
    }
    assert_true(at > 10);
    json_array_foreach (json_object_get(rlp, "decode_must_fail"), at, row) {
        AUTO_BUF struct buf encoded = {0};
        json_t *item = decode_whole(vectors_hex(row, "encoded", &encoded));

        if (item)
            fail_msg("%s was accepted", vectors_str(row, "name"));
    }
    assert_true(at > 10);
    json_decref(root);
}

/* Strings and lists at each length where the form changes, and every shorter cut of them. */
static void test_length_forms(void **state)
{
    static const struct {
        size_t len, head;
    } forms[] = {{0, 1},   {1, 1},   {2, 1},     {55, 1},    {56, 2},   {57, 2},
                 {255, 2}, {256, 3}, {65535, 3}, {65536, 4}, {70000, 4}};
    static uint8_t bytes[70000];

    (void)state;
    memset(bytes, 0x80, sizeof(bytes));
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        AUTO_BUF struct buf string = BUF(1 << 20), list = BUF(1 << 20), small;
        struct slice in = slice_of(bytes, forms[i].len), got = {0};
        size_t size = forms[i].head + forms[i].len; /* a single 0x80 needs a head, too */
        struct reader r, before;

        assert_int_equal(rlp_put_string(&string, in), 0);
        assert_int_equal(string.len, size);
        assert_int_equal(rlp_string_size(in), size);
        assert_int_equal(rlp_put_list_head(&list, in.len), 0);
        assert_int_equal(list.len, forms[i].head);
        assert_int_equal(rlp_list_size(in.len), size);
        assert_int_equal(buf_append(&list, in.ptr, in.len), 0);

        for (size_t cut = 1; cut <= size; cut += cut < 4 || cut + 4 > size ? 1 : size / 7 + 1) {
            r = before = reader_of(slice_of(string.ptr, size - cut));
            assert_false(rlp_read_string(&r, &got));
            assert_memory_equal(&r, &before, sizeof(r));
            r = before = reader_of(slice_of(list.ptr, size - cut));
            assert_false(rlp_read_list(&r, &got));
            assert_memory_equal(&r, &before, sizeof(r));
        }
        r = before = reader_of(buf_slice(&list));
        assert_true(rlp_at_list(&r));
        assert_false(rlp_read_string(&r, &got));
        assert_false(rlp_read_integer(&r, SIZE_MAX, &got));
        assert_memory_equal(&r, &before, sizeof(r));
        assert_true(rlp_read_list(&r, &got));
        assert_true(slice_equal(got, in) && reader_left(&r) == 0);
        r = before = reader_of(buf_slice(&string));
        assert_false(rlp_at_list(&r));
        assert_false(rlp_read_list(&r, &got));
        assert_memory_equal(&r, &before, sizeof(r));
        assert_true(rlp_read_string(&r, &got));
        assert_true(slice_equal(got, in) && reader_left(&r) == 0);

        small = BUF(size - 1);
        assert_int_equal(rlp_put_string(&small, in), -1);
        assert_int_equal(small.len, 0);
        small.max = forms[i].head - 1;
        assert_int_equal(rlp_put_list_head(&small, in.len), -1);
        assert_int_equal(small.len, 0);
    }
}

static void test_integers(void **state)
{
    static const struct {
        const char *encoded;
        size_t max;
        bool ok;
        const char *bytes;
    } cases[] = {
        {"80", 0, true, ""},     {"01", 1, true, "01"},       {"7f", 1, true, "7f"},
        {"8180", 1, true, "80"}, {"820100", 2, true, "0100"}, {"820100", 1, false, ""},
        {"01", 0, false, ""},    {"00", 1, false, ""},        {"820001", 2, false, ""},
        {"8100", 1, false, ""},  {"c0", 1, false, ""},        {"", 1, false, ""},
        {"8201", 2, false, ""},  {"b80180", 9, false, ""},
    };
    AUTO_BUF struct buf want = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_BUF struct buf in = {0}, bytes = {0};
        struct reader r = reader_of(hex_slice(&in, cases[i].encoded));
        struct slice got = slice_of("?", 1);

        assert_int_equal(rlp_read_integer(&r, cases[i].max, &got), cases[i].ok);
        if (cases[i].ok)
            assert_true(slice_equal(got, hex_slice(&bytes, cases[i].bytes)));
        else
            assert_true(r.pos == in.ptr && slice_equal_str(got, "?"));
    }
    assert_true(slice_equal(rlp_integer(slice_of("\0\0\1\0", 4)), slice_of("\1\0", 2)));
    assert_int_equal(rlp_integer(slice_of("\0\0", 2)).len, 0);
    assert_int_equal(rlp_integer(hex_slice(&want, "")).len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_length_forms),
        cmocka_unit_test(test_integers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
