#include "unit.h"

#include "api/spki.h"
#include "base/text.h"

#include <string.h>

static int key_of(const char *hex, char **out)
{
    AUTO_BUF struct buf der = BUF(1 << 20);
    struct error err;
    struct slice key;

    assert_int_equal(hex_decode_buf(slice_str(hex), &der), 0);
    if (spki_key_bytes(buf_slice(&der), &key, &err) < 0) {
        assert_int_equal(err.kind, ERR_INVALID);
        return -1;
    }
    *out = hex_encode_dup("", key);
    return 0;
}

static void content_of_the_bit_string(void **state)
{
    static const char ed25519[] =
        "302a300506032b6570032100"
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    AUTO_FREE char *key = NULL, *small = NULL;

    (void)state;
    assert_int_equal(key_of(ed25519, &key), 0);
    assert_string_equal(key, ed25519 + 24);
    /* Algorithm and key are not looked into. */
    assert_int_equal(key_of("3006300003020041", &small), 0);
    assert_string_equal(small, "41");
}

/* The long forms of lengths, at the borders where DER goes from one to the next. */
static void lengths_at_the_borders(void **state)
{
    static const size_t sizes[] = {122, 123, 124, 126,   127,   128,  250,
                                   255, 256, 257, 65534, 65535, 65536};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        AUTO_BUF struct buf bits = BUF(1 << 20), der = BUF(1 << 20), all = BUF(1 << 20);
        struct buf *const parts[] = {&bits, &der, &all};
        static const uint8_t tags[] = {0x03, 0x30};
        struct error err;
        struct slice key;

        assert_int_equal(buf_append_byte(&bits, 0), 0);
        for (size_t n = 0; n < sizes[i]; n++)
            assert_int_equal(buf_append_byte(&bits, (uint8_t)n), 0);
        for (size_t level = 0; level < 2; level++) {
            struct buf *in = parts[level], *out = parts[level + 1];
            AUTO_BUF struct buf inner = BUF(1 << 20);
            size_t len;

            if (level == 1)
                assert_int_equal(buf_append(&inner, "\x30\x00", 2), 0);
            assert_int_equal(buf_append(&inner, in->ptr, in->len), 0);
            len = inner.len;
            assert_int_equal(buf_append_byte(out, tags[level]), 0);
            if (len >= 0x10000)
                assert_int_equal(buf_append(out, ((uint8_t[]){0x83, len >> 16, len >> 8, len}), 4),
                                 0);
            else if (len >= 0x100)
                assert_int_equal(buf_append(out, ((uint8_t[]){0x82, len >> 8, len}), 3), 0);
            else if (len >= 0x80)
                assert_int_equal(buf_append(out, ((uint8_t[]){0x81, len}), 2), 0);
            else
                assert_int_equal(buf_append_byte(out, (uint8_t)len), 0);
            assert_int_equal(buf_append(out, inner.ptr, len), 0);
        }
        assert_ok(spki_key_bytes(buf_slice(&all), &key, &err));
        assert_int_equal(key.len, sizes[i]);
        assert_memory_equal(key.ptr, bits.ptr + 1, key.len);
    }
}

static void hostile_der_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "30",
        "3006",
        "30063000030200",     /* ends early */
        "300630000302004100", /* something behind it */
        "300730000302004100", /* something behind the key, inside */
        "3005300003010041",   /* the outer length cuts it short */
        "30053000030100",     /* empty key */
        "3004300003"
        "00",               /* not even the octet of unused bits */
        "3006300003020141", /* unused bits */
        "30063000030208"
        "41",
        "3006310003020041", /* SET instead of SEQUENCE */
        "3106300003020041",
        "3006300004020041",     /* OCTET STRING */
        "3006300023020041",     /* constructed BIT STRING */
        "30803000030200410000", /* indefinite length */
        "3080300003020041",
        "308106300003020041", /* long form of a short length */
        "30820006300003020041",
        "3006300003810200"
        "41",
        "308400000006300003020041", /* four octets of length */
        "30ff300003020041",
        "3083ffffff300003020041", /* far past the end */
        "3006300083020041",       /* context tag */
        "3f0106300003020041",     /* high tag number */
        "3006"
        "03020041"
        "3000", /* the wrong way round */
        "0000",
    };
    char *key = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (key_of(bad[i], &key) == 0)
            fail_msg("accepted %s", bad[i]);
}

/* No prefix and no single flipped tag or length byte of a good key gets past the checks unnoticed.
 */
static void every_prefix_is_refused(void **state)
{
    static const char good[] = "302a300506032b6570032100"
                               "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    char *key = NULL;

    (void)state;
    for (size_t len = 0; len < sizeof(good) - 1; len += 2) {
        AUTO_FREE char *prefix = xstrndup(good, len);

        assert_int_equal(key_of(prefix, &key), -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_of_the_bit_string),
        cmocka_unit_test(lengths_at_the_borders),
        cmocka_unit_test(hostile_der_is_refused),
        cmocka_unit_test(every_prefix_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
