#include "unit.h"

#include "codec/dns.h"

static void assert_query(const char *name, const char *want)
{
    AUTO_BUF struct buf out = BUF(DNS_QUERY_MAX);
    struct error err;

    assert_ok(dns_query_write(0x1234, name, DNS_AAAA, &out, &err));
    assert_int_equal(out.len, 12 + strlen(want) + 1 + 4);
    assert_memory_equal(out.ptr, "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", 12);
    assert_memory_equal(out.ptr + 12, want, strlen(want) + 1);
    assert_memory_equal(out.ptr + out.len - 4, "\x00\x1c\x00\x01", 4);
}

static void questions(void **state)
{
    static const char *const bad[] = {"", ".", "a..b", ".a", "a.."};
    char name[300];
    struct error err;

    (void)state;
    assert_query("a.example", "\x01"
                              "a\x07"
                              "example");
    assert_query("a.example.", "\x01"
                               "a\x07"
                               "example");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_BUF struct buf out = BUF(DNS_QUERY_MAX);

        assert_int_equal(dns_query_write(1, bad[i], DNS_A, &out, &err), -1);
        assert_int_equal(err.kind, ERR_INVALID);
    }
    /* The longest label, the longest name, and one more of each. */
    for (int dots = 0; dots < 2; dots++) {
        for (size_t len = dots ? 253 : 63; len <= (dots ? 254 : 64); len++) {
            AUTO_BUF struct buf out = BUF(DNS_QUERY_MAX);
            bool fits = len == (dots ? 253 : 63);

            for (size_t i = 0; i < len; i++)
                name[i] = dots && i && (i + len) % 2 == 0 ? '.' : 'x';
            name[len] = '\0';
            assert_int_equal(dns_query_write(1, name, DNS_A, &out, &err), fits ? 0 : -1);
        }
    }
}

/* An alias and two addresses, one of another family. */
#define HEAD "\x00\x01\x81\x80\x00\x01\x00\x03\x00\x00\x00\x00"
#define ASKED                                                                                      \
    "\x01"                                                                                         \
    "a\x02"                                                                                        \
    "bc\x00\x00\x01\x00\x01"
#define ALIAS                                                                                      \
    "\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x03\x01"                                         \
    "d\x00"
#define FOUR                                                                                       \
    "\x01"                                                                                         \
    "d\x00\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01"
#define SIX                                                                                        \
    "\xc0\x0c\x00\x1c\x00\x01\x00\x00\x00\x3c\x00\x10"                                             \
    "0123456789abcdef"
#define ANSWER HEAD ASKED ALIAS FOUR SIX

static void answers(void **state)
{
    const struct slice whole = slice_of(ANSWER, sizeof(ANSWER) - 1);
    struct ip_addr addrs[4];
    struct error err;
    size_t count;

    (void)state;
    assert_ok(dns_reply_parse(whole, 1, DNS_A, addrs, 4, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(addrs[0].family, 4);
    assert_memory_equal(addrs[0].bytes, "\x7f\x00\x00\x01", 4);
    assert_ok(dns_reply_parse(whole, 1, DNS_AAAA, addrs, 4, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(addrs[0].family, 6);
    assert_memory_equal(addrs[0].bytes, "0123456789abcdef", 16);
    assert_ok(dns_reply_parse(whole, 1, DNS_A, addrs, 0, &count, &err));
    assert_int_equal(count, 0);
    assert_int_equal(dns_reply_parse(whole, 2, DNS_A, addrs, 4, &count, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    for (size_t len = 0; len < whole.len; len++)
        assert_int_equal(
            dns_reply_parse(slice_of(ANSWER, len), 1, DNS_AAAA, addrs, 4, &count, &err), -1);
}

static void refusals(void **state)
{
    static const struct {
        uint8_t flags[2];
        enum error_kind kind;
    } all[] = {
        {{0x01, 0x00}, ERR_INVALID},   /* a question */
        {{0x83, 0x80}, ERR_INVALID},   /* cut off */
        {{0x81, 0x83}, ERR_NOT_FOUND}, /* no such name */
        {{0x81, 0x82}, ERR_NET},       /* failed */
        {{0x81, 0x85}, ERR_NET},       /* refused */
    };
    struct ip_addr addrs[4];
    struct error err;
    size_t count;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        uint8_t message[sizeof(ANSWER) - 1];

        memcpy(message, ANSWER, sizeof(message));
        memcpy(message + 2, all[i].flags, 2);
        assert_int_equal(
            dns_reply_parse(slice_of(message, sizeof(message)), 1, DNS_A, addrs, 4, &count, &err),
            -1);
        assert_int_equal(err.kind, all[i].kind);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions),
        cmocka_unit_test(answers),
        cmocka_unit_test(refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
