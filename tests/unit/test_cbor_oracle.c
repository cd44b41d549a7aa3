/* codec/cbor.c against libcbor, on random items and on their corruptions. */
#include "cbor_oracle.h"
#include "unit.h"

#include "codec/cbor.h"

#include <stdio.h>
#include <string.h>

#define ITEMS 3000

static void render_string(struct buf *out, char kind, struct slice s)
{
    AUTO_FREE char *hex = hex_encode_dup("", s);

    assert_int_equal(buf_printf(out, "%c'%s'", kind, hex), 0);
}

/* As oracle_render() does. */
static void render(struct buf *out, const struct cbor_item *item)
{
    struct cbor_iter it = cbor_iter_of(item);
    struct cbor_item key, value;
    int bad = 0;

    switch (item->type) {
    case CBOR_UINT:
    case CBOR_NINT:
        bad = buf_printf(out, item->type == CBOR_NINT ? "~%llu" : "%llu",
                         (unsigned long long)item->n);
        break;
    case CBOR_BYTES:
    case CBOR_TEXT:
        render_string(out, item->type == CBOR_BYTES ? 'h' : 't', item->str);
        break;
    case CBOR_ARRAY:
        bad = buf_append_str(out, item->indefinite ? "[_" : "[");
        for (uint64_t i = 0; cbor_next(&it, &value); i++) {
            bad |= i ? buf_append_byte(out, ',') : 0;
            render(out, &value);
        }
        bad |= buf_append_byte(out, ']');
        break;
    case CBOR_MAP:
        bad = buf_append_str(out, item->indefinite ? "{_" : "{");
        for (uint64_t i = 0; cbor_next_entry(&it, &key, &value); i++) {
            bad |= i ? buf_append_byte(out, ',') : 0;
            render(out, &key);
            bad |= buf_append_byte(out, ':');
            render(out, &value);
        }
        bad |= buf_append_byte(out, '}');
        break;
    case CBOR_TAG:
        bad = buf_printf(out, "%llu(", (unsigned long long)item->n);
        if (cbor_next(&it, &value))
            render(out, &value);
        bad |= buf_append_byte(out, ')');
        break;
    case CBOR_BOOL:
        bad = buf_append_str(out, item->n ? "true" : "false");
        break;
    case CBOR_NULL:
        bad = buf_append_str(out, "null");
        break;
    }
    assert_int_equal(bad, 0);
}

/* Whether there is a tag that libcbor does not take. */
static bool has_low_tag(const struct cbor_item *item)
{
    struct cbor_iter it = cbor_iter_of(item);
    struct cbor_item key, value;
    bool found = item->type == CBOR_TAG && item->n < ORACLE_TAG_MIN;

    if (item->type == CBOR_MAP) {
        while (!found && cbor_next_entry(&it, &key, &value))
            found = has_low_tag(&value);
    } else {
        while (!found && cbor_next(&it, &value))
            found = has_low_tag(&value);
    }
    return found;
}

static void assert_same(const struct cbor_item *item)
{
    AUTO_BUF struct buf mine = BUF(1 << 20);
    AUTO_FREE char *theirs = oracle_render(item->raw.ptr, item->raw.len);

    render(&mine, item);
    if (!theirs && has_low_tag(item))
        return;
    if (!theirs)
        fail_msg("libcbor refuses %s", buf_cstr(&mine));
    assert_string_equal(buf_cstr(&mine), theirs);
}

/* Writes what was read, in our form: shortest heads, definite lengths. */
static void rewrite(struct cbor_writer *w, const struct cbor_item *item)
{
    struct cbor_iter it = cbor_iter_of(item);
    struct cbor_item key, value;

    switch (item->type) {
    case CBOR_UINT:
        cbor_put_uint(w, item->n);
        return;
    case CBOR_NINT:
        if (item->n <= INT64_MAX)
            cbor_put_int(w, -1 - (int64_t)item->n);
        else
            cbor_put_raw(w, item->raw);
        return;
    case CBOR_BYTES:
        cbor_put_bytes(w, item->str);
        return;
    case CBOR_TEXT:
        cbor_put_text(w, item->str);
        return;
    case CBOR_BOOL:
        cbor_put_bool(w, item->n != 0);
        return;
    case CBOR_NULL:
        cbor_put_null(w);
        return;
    case CBOR_MAP:
        if (item->indefinite)
            cbor_put_map_indefinite(w);
        else
            cbor_put_map(w, item->n);
        while (cbor_next_entry(&it, &key, &value)) {
            rewrite(w, &key);
            rewrite(w, &value);
        }
        if (item->indefinite)
            cbor_put_break(w);
        return;
    case CBOR_ARRAY:
        cbor_put_array(w, item->n);
        break;
    case CBOR_TAG:
        cbor_put_tag(w, item->n);
        break;
    }
    while (cbor_next(&it, &value))
        rewrite(w, &value);
}

static void test_reads_what_libcbor_writes(void **state)
{
    static uint8_t bytes[1 << 16];
    uint64_t seed = 1;

    (void)state;
    for (int i = 0; i < ITEMS; i++) {
        size_t len = oracle_write(&seed, bytes, sizeof(bytes));
        struct error err = {0};
        struct cbor_item item;

        assert_ok(cbor_parse(slice_of(bytes, len), &item, &err));
        assert_same(&item);
    }
}

static void test_libcbor_reads_what_we_write(void **state)
{
    static uint8_t bytes[1 << 16];
    uint64_t seed = 2;

    (void)state;
    for (int i = 0; i < ITEMS; i++) {
        size_t len = oracle_write(&seed, bytes, sizeof(bytes));
        AUTO_BUF struct buf mine = BUF(sizeof(bytes));
        struct cbor_writer w = {.out = &mine};
        struct error err = {0};
        struct cbor_item item;

        assert_ok(cbor_parse(slice_of(bytes, len), &item, &err));
        rewrite(&w, &item);
        assert_false(w.failed);
        assert_true(mine.len <= len);
        assert_ok(cbor_parse(buf_slice(&mine), &item, &err));
        assert_same(&item);
    }
}

/* We may refuse what libcbor takes (floats, bad UTF-8, double keys), but never the reverse. */
static void test_corrupted_items(void **state)
{
    static uint8_t bytes[1 << 16];
    uint64_t seed = 3;
    int taken = 0;

    (void)state;
    for (int i = 0; i < ITEMS; i++) {
        size_t len = oracle_write(&seed, bytes, sizeof(bytes));
        struct cbor_item item;

        for (int k = 0; k < 4; k++) {
            bytes[oracle_next(&seed) % len] ^= (uint8_t)(1u << oracle_next(&seed) % 8);
            if (cbor_parse(slice_of(bytes, len), &item, NULL) == 0) {
                assert_same(&item);
                taken++;
            }
        }
    }
    assert_true(taken > ITEMS / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_libcbor_writes),
        cmocka_unit_test(test_libcbor_reads_what_we_write),
        cmocka_unit_test(test_corrupted_items),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
