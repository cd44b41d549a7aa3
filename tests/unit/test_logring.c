#include "unit.h"

#include "enclave/logring.h"

#include <stdio.h>

/* Everything from `offset` to the end, in one piece. */
static void collect(const struct logring *r, uint64_t offset, struct buf *out)
{
    struct slice piece;

    buf_clear(out);
    while ((piece = logring_peek(r, offset)).len) {
        assert_int_equal(buf_append(out, piece.ptr, piece.len), 0);
        offset += piece.len;
    }
    assert_int_equal(offset, r->end);
}

static void keeps_everything_until_full(void **state)
{
    AUTO_BUF struct buf b = BUF(LOGRING_BYTES);
    struct logring r = {0};

    (void)state;
    assert_int_equal(logring_seek(&r, 0), 0);
    assert_int_equal(logring_peek(&r, 0).len, 0);
    logring_write(&r, "hello\n", 6);
    collect(&r, logring_seek(&r, 0), &b);
    assert_true(slice_equal_str(buf_slice(&b), "hello\n"));
    collect(&r, logring_seek(&r, 3), &b);
    assert_true(slice_equal_str(buf_slice(&b), "lo\n"));
    assert_int_equal(logring_seek(&r, 7), 6);
    logring_free(&r);
}

static void keeps_the_newest_131071_bytes(void **state)
{
    AUTO_BUF struct buf b = BUF(LOGRING_BYTES);
    struct logring r = {0};
    char line[16];
    uint64_t at;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        snprintf(line, sizeof(line), "line %06d\n", i);
        logring_write(&r, line, strlen(line));
    }
    assert_int_equal(r.end, 240000);
    assert_int_equal(logring_start(&r), 240000 - LOGRING_BYTES);
    at = logring_seek(&r, 5);
    /* The first whole line behind the oldest byte. */
    assert_int_equal(at % 12, 0);
    assert_in_range(at - logring_start(&r), 1, 12);
    collect(&r, at, &b);
    snprintf(line, sizeof(line), "line %06u\n", (unsigned)(at / 12));
    assert_memory_equal(b.ptr, line, 12);
    assert_memory_equal(b.ptr + b.len - 12, "line 019999\n", 12);
    logring_free(&r);
}

static void one_endless_line_keeps_its_tail(void **state)
{
    AUTO_BUF struct buf b = BUF(LOGRING_BYTES);
    static uint8_t block[300000];
    struct logring r = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = (uint8_t)('a' + i % 26);
    logring_write(&r, block, sizeof(block));
    assert_int_equal(logring_seek(&r, 0), sizeof(block) - LOGRING_BYTES);
    collect(&r, logring_seek(&r, 0), &b);
    assert_int_equal(b.len, LOGRING_BYTES);
    assert_memory_equal(b.ptr, block + sizeof(block) - LOGRING_BYTES, LOGRING_BYTES);
    logring_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_everything_until_full),
        cmocka_unit_test(keeps_the_newest_131071_bytes),
        cmocka_unit_test(one_endless_line_keeps_its_tail),
    };

    return cmocka_run_group_tests_name("logring", tests, NULL, NULL);
}
