/* Egress policy: the grammar, the tables 6.2 and 6.4 of spec/wire-protocols.md, and 6.5. */
#include "manifest/policy.h"

#include "unit.h"

static struct policy_rule rule_of(const char *text)
{
    struct policy_rule rule;
    struct error err;

    assert_ok(policy_rule_parse(slice_str(text), &rule, &err));
    return rule;
}

static struct policy policy_of(const char *const *allow, const char *const *deny)
{
    struct policy p = POLICY_NONE;
    struct policy_rule rule;

    for (; allow && *allow; allow++) {
        rule = rule_of(*allow);
        policy_add_allow(&p, &rule);
    }
    for (; deny && *deny; deny++) {
        rule = rule_of(*deny);
        policy_add_deny(&p, &rule);
    }
    return p;
}

#define LIST(...)    ((const char *const[]){__VA_ARGS__, NULL})
#define POLICY(...)  policy_of(LIST(__VA_ARGS__), NULL)
#define AUTO_POLICY  CLEANUP(policy_free)
#define TRY(p, h, n) try(&(p), h, n)
#define ALLOWED      1
#define REFUSED      0
#define NOT_A_TARGET (-1)

/* 1: allowed, 0: refused by policy (403), -1: no valid target (400) */
static int try(const struct policy *p, const char *host, uint32_t port)
{
    struct policy_target target;
    struct error err;

    if (policy_target_normalise(slice_str(host), port, &target, &err) < 0)
        return NOT_A_TARGET;
    return policy_check(p, &target).allowed;
}

static void patterns_match_as_the_table_says(void **state)
{
    static const struct {
        const char *pattern, *host;
        int want;
    } rows[] = {
        {"example.com", "example.com", ALLOWED},
        {"example.com", "Example.COM", ALLOWED},
        {"EXAMPLE.com", "example.com", ALLOWED},
        {"example.com", "example.com.", ALLOWED},
        {"example.com", "a.example.com", REFUSED},
        {"example.com", ".example.com", NOT_A_TARGET},
        {"example.com", "example.", REFUSED},
        {"example.com", "example.com..", NOT_A_TARGET},
        {"*.com", "example.com", ALLOWED},
        {"*.com", "a.b.com", REFUSED},
        {"*.com", "com", REFUSED},
        {"*.com", ".com", NOT_A_TARGET},
        {"foo.*.com", "foo.x.com", ALLOWED},
        {"foo.*.com", "foo.x.y.com", REFUSED},
        {"foo.*.com", ".com", NOT_A_TARGET},
        {"example.*", "example.org", ALLOWED},
        {"**.amazonaws.com", "s3.amazonaws.com", ALLOWED},
        {"**.amazonaws.com", "a.b.amazonaws.com", ALLOWED},
        {"**.amazonaws.com", "amazonaws.com", REFUSED},
        {"**.amazonaws.com", "s3.amazonaws.com.evil.org", REFUSED},
        {"**.amazonaws.com", "xamazonaws.com", REFUSED},
        {"**.*.com", "a.b.com", ALLOWED},
        {"**.*.com", "b.com", REFUSED},
        {"**", "example.com", ALLOWED},
        {"**", "single", ALLOWED},
        {"*", "single", ALLOWED},
        {"*", "two.labels", REFUSED},
        {"**", "127.0.0.1", REFUSED},
        {"**", "[::1]", REFUSED},
        {"**", "::1", REFUSED},
        {"x_y-z.example", "x_y-z.example", ALLOWED},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        AUTO_POLICY struct policy p = POLICY(rows[i].pattern);
        int got = TRY(p, rows[i].host, 443);

        if (got != rows[i].want)
            fail_msg("%s against %s: %d, want %d", rows[i].host, rows[i].pattern, got,
                     rows[i].want);
    }
}

static void ports_restrict(void **state)
{
    AUTO_POLICY struct policy p = POLICY("a.com:443", "b.com:8000-8002", "10.0.0.0/8:53",
                                         "[2001:db8::/32]:80", "[2001:db9::1]");

    (void)state;
    assert_int_equal(TRY(p, "a.com", 443), ALLOWED);
    assert_int_equal(TRY(p, "a.com", 80), REFUSED);
    assert_int_equal(TRY(p, "b.com", 7999), REFUSED);
    assert_int_equal(TRY(p, "b.com", 8000), ALLOWED);
    assert_int_equal(TRY(p, "b.com", 8002), ALLOWED);
    assert_int_equal(TRY(p, "b.com", 8003), REFUSED);
    assert_int_equal(TRY(p, "10.1.2.3", 53), ALLOWED);
    assert_int_equal(TRY(p, "10.1.2.3", 54), REFUSED);
    assert_int_equal(TRY(p, "[2001:db8::5]", 80), ALLOWED);
    assert_int_equal(TRY(p, "[2001:db8::5]", 81), REFUSED);
    assert_int_equal(TRY(p, "2001:db9::1", 81), ALLOWED);
}

static void bad_rules_name_the_intent(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "empty entry"},
        {"https://x", "give a host name, not a URL: did you mean \"x\""},
        {"http://u:p@x.org:81/a?b", "did you mean \"x.org:81\""},
        {"http://", "not a URL"},
        {"x.org/path", "not a path: did you mean \"x.org\""},
        {"x.org:80/path", "not a path: did you mean \"x.org:80\""},
        {"me@x.org", "no user name: did you mean \"x.org\""},
        {"foo*.com", "whole label: did you mean \"*.com\""},
        {"a.foo*.com", "did you mean \"a.*.com\""},
        {"foo**.com", "did you mean \"**.com\""},
        {"***", "did you mean \"**\""},
        {"a.**.com", "leftmost label: did you mean \"**.com\""},
        {"foo.**", "leftmost label: did you mean \"foo.*\""},
        {"*.", "ends with a dot: did you mean \"*\""},
        {"evil.com.", "did you mean \"evil.com\""},
        {".example.com", "did you mean \"**.example.com\""},
        {"a..b", "nothing between two dots"},
        {".", "nothing between two dots"},
        {"..", "nothing between two dots"},
        {" x.org", "white space"},
        {"x.org, y.org", "one host or network for each list entry"},
        {"b\xc3\xbc"
         "cher.de",
         "xn--"},
        {"x.org:", "is not a port"},
        {"x.org:0", "is not a port"},
        {"x.org:65536", "is not a port"},
        {"x.org:*", "leave it out for every port"},
        {"x.org:80-", "not a port range"},
        {"x.org:90-80", "did you mean \"80-90\""},
        {":443", "did you mean \"**:443\""},
        {"10.0.0.0/33", "prefix length from 0 to 32"},
        {"::/129", "prefix length from 0 to 128"},
        {"10.0.0.0/255.0.255.0", "has holes"},
        {"127.1", "did you mean \"127.0.0.1\""},
        {"0x7f.1", "did you mean \"127.0.0.1\""},
        {"0177.0.0.1", "did you mean \"127.0.0.1\""},
        {"2852039166", "did you mean \"169.254.169.254\""},
        {"256.1.1.1", "not an IPv4 address"},
        {"10.0.0.0.0", "not an IPv4 address"},
        {"*.5", "not an IPv4 address"},
        {"fe80::1%eth0", "zone"},
        {"2001:db8::1:x", "not an IPv6 network"},
        {"[2001:db8::1", "not closed"},
        {"[2001:db8::]/32:80", "inside the brackets"},
        {"[10.0.0.1]:80", "brackets are for IPv6"},
        {"[::1]x", "only :PORT"},
        {"a!b", "\"!\" cannot stand"},
    };
    struct policy_rule rule;
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (policy_rule_parse(slice_str(rows[i].text), &rule, &err) == 0)
            fail_msg("\"%s\" was accepted", rows[i].text);
        if (!strstr(err.msg, rows[i].says))
            fail_msg("\"%s\": \"%s\" does not say \"%s\"", rows[i].text, err.msg, rows[i].says);
    }
}

static void label_and_name_lengths(void **state)
{
    struct policy_rule rule;
    struct error err;
    char name[300];

    (void)state;
    memset(name, 'a', sizeof(name));
    assert_int_equal(policy_rule_parse(slice_of(name, 63), &rule, &err), 0);
    assert_int_equal(policy_rule_parse(slice_of(name, 64), &rule, &err), -1);
    for (size_t i = 63; i < sizeof(name); i += 64)
        name[i] = '.';
    assert_int_equal(policy_rule_parse(slice_of(name, 253), &rule, &err), 0);
    assert_int_equal(policy_rule_parse(slice_of(name, 254), &rule, &err), -1);
    assert_int_equal(policy_rule_parse(slice_of(name, 290), &rule, &err), -1);
    memcpy(name + 253, ":10000-65535", 12);
    assert_int_equal(policy_rule_parse(slice_of(name, 265), &rule, &err), 0);
    assert_int_equal(rule.port_high, 65535);
}

static void networks(void **state)
{
    AUTO_POLICY struct policy p =
        POLICY("10.1.2.3/8", "192.168.0.0/255.255.0.0", "1.2.3.4", "2001:db8::/33");
    struct policy_rule rule;

    (void)state;
    assert_int_equal(TRY(p, "10.255.0.1", 1), ALLOWED);
    assert_int_equal(TRY(p, "11.0.0.1", 1), REFUSED);
    assert_int_equal(TRY(p, "192.168.7.7", 1), ALLOWED);
    assert_int_equal(TRY(p, "192.169.0.1", 1), REFUSED);
    assert_int_equal(TRY(p, "1.2.3.4", 1), ALLOWED);
    assert_int_equal(TRY(p, "1.2.3.5", 1), REFUSED);
    assert_int_equal(TRY(p, "[2001:db8:7fff::1]", 1), ALLOWED);
    assert_int_equal(TRY(p, "[2001:db8:8000::1]", 1), REFUSED);
    rule = rule_of("192.168.0.0/255.255.0.0");
    assert_string_equal(rule.warning, "netmask notation is discouraged: write \"192.168.0.0/16\"");
    rule = rule_of("::ffff:10.0.0.0/104");
    assert_string_equal(rule.warning, "taken as IPv4: write \"10.0.0.0/8\"");
    assert_int_equal(rule_of("10.0.0.0/8").warning[0], 0);
    assert_true(policy_rule_is_all(&(struct policy_rule){.kind = POLICY_RULE_NET}));
    rule = rule_of("**:443");
    assert_true(policy_rule_is_all(&rule));
    rule = rule_of("*.com");
    assert_false(policy_rule_is_all(&rule));
}

/* Each row of 6.4. */
static void tricks_do_not_bypass(void **state)
{
    static const char *const spellings[] = {
        "2852039166",         "0xA9FEA9FE",
        "169.254.43518",      "0251.0376.0251.0376",
        "169.254.169.254",    "169.254.169.254.",
        "[::ffff:a9fe:a9fe]", "[::169.254.169.254]",
        "0XA9.0xfe.0251.254", "::ffff:169.254.169.254",
    };
    AUTO_POLICY struct policy p = policy_of(LIST("**", "0.0.0.0/0", "::/0"),
                                            LIST("169.254.0.0/16", "127.0.0.0/8", "evil.com"));
    AUTO_POLICY struct policy names = POLICY("**", "*");
    AUTO_POLICY struct policy local = POLICY("host", "localhost");
    struct policy_target t;
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(spellings); i++) {
        assert_ok(policy_target_normalise(slice_str(spellings[i]), 80, &t, &err));
        assert_true(t.is_addr);
        assert_string_equal(t.host, "169.254.169.254");
        assert_int_equal(TRY(p, spellings[i], 80), REFUSED);
        assert_int_equal(TRY(names, spellings[i], 80), REFUSED);
    }
    assert_int_equal(TRY(p, "127.1", 80), REFUSED);
    assert_int_equal(TRY(p, "0177.0.0.1", 80), REFUSED);
    assert_int_equal(TRY(p, "1.1", 80), ALLOWED);
    /* carried inside IPv6 */
    assert_int_equal(TRY(p, "[64:ff9b::7f00:1]", 80), REFUSED);
    assert_int_equal(TRY(p, "[64:ff9b::8.8.8.8]", 80), ALLOWED);
    assert_int_equal(TRY(p, "[2002:a9fe:a9fe::1]", 80), REFUSED);
    assert_int_equal(TRY(p, "[2001:0:7f00:1::1]", 80), REFUSED);
    assert_int_equal(TRY(p, "[2001:0:808:808::5601:5601]", 80), REFUSED);
    assert_int_equal(TRY(p, "[2001:db8::1]", 80), ALLOWED);
    /* the final dot */
    assert_int_equal(TRY(p, "evil.com.", 80), REFUSED);
    assert_int_equal(TRY(p, "good.com.", 80), ALLOWED);
    /* local names need a literal rule */
    assert_int_equal(TRY(names, "host", 80), REFUSED);
    assert_int_equal(TRY(names, "localhost", 80), REFUSED);
    assert_int_equal(TRY(names, "x.localhost", 80), REFUSED);
    assert_int_equal(TRY(names, "LocalHost.", 80), REFUSED);
    assert_int_equal(TRY(names, "xlocalhost", 80), ALLOWED);
    assert_int_equal(TRY(local, "HOST", 80), ALLOWED);
    assert_int_equal(TRY(local, "localhost", 80), ALLOWED);
    assert_int_equal(TRY(names, "metadata", 80), ALLOWED); /* the host checks where it leads */
}

static void bad_targets_are_refused(void **state)
{
    static const char *const hosts[] = {
        "",
        ".",
        "a@b",
        "allowed.com@evil.com",
        "a%2e.com",
        "fe80::1%eth0",
        "[fe80::1%25eth0]",
        "[::1",
        "::1]",
        "[]",
        "[1.2.3.4]",
        "a b",
        "a/b",
        "a..b",
        "b\xc3\xbc.de",
        "a\\b",
        "a,b",
        "1.2.3.4.5",
        "1.2.3.256",
        "256.1.1.1",
        "08.1.1.1",
        "1..2",
        "foo.0xzz",
        "foo.12",
        "0x",
        "4294967296",
        "1.16777216",
        "0x1.0x",
        "[[::1]]",
        ":",
        "1:2",
        "a\tb",
    };
    AUTO_POLICY struct policy p = POLICY("**", "0.0.0.0/0", "::/0");
    struct policy_target t;
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++)
        if (TRY(p, hosts[i], 80) != NOT_A_TARGET)
            fail_msg("\"%s\" was taken as a target", hosts[i]);
    assert_int_equal(policy_target_normalise(slice_of("a\0b", 3), 80, &t, &err), -1);
    assert_int_equal(TRY(p, "a.com", 0), NOT_A_TARGET);
    assert_int_equal(TRY(p, "a.com", 65536), NOT_A_TARGET);
    assert_int_equal(TRY(p, "a.com", 65535), ALLOWED);
}

static void deny_wins_and_is_named(void **state)
{
    AUTO_POLICY struct policy p =
        policy_of(LIST("**", "host"), LIST("evil.com", "**.evil.com:80-90", "*"));
    struct policy_target t;
    struct policy_verdict v;
    struct error err;
    char text[400];

    (void)state;
    assert_ok(policy_target_normalise(slice_str("a.evil.com"), 81, &t, &err));
    v = policy_check(&p, &t);
    assert_false(v.allowed);
    policy_verdict_text(&v, t.host, t.port, text, sizeof(text));
    assert_string_equal(text, "rule \"**.evil.com:80-90\" denies a.evil.com:81");
    assert_int_equal(TRY(p, "a.evil.com", 443), ALLOWED);
    assert_int_equal(TRY(p, "host", 443), REFUSED); /* deny wildcards cover local names */
    assert_ok(policy_target_normalise(slice_str("::2:2"), 81, &t, &err));
    v = policy_check(&p, &t);
    policy_verdict_text(&v, t.host, t.port, text, sizeof(text));
    assert_string_equal(text, "no allow rule matches 0.2.0.2:81");
    assert_ok(policy_target_normalise(slice_str("2001:DB8::2"), 81, &t, &err));
    v = policy_check(&p, &t);
    policy_verdict_text(&v, t.host, t.port, text, sizeof(text));
    assert_string_equal(text, "no allow rule matches [2001:db8::2]:81");
}

static bool resolved_ok(const struct policy *p, const char *addr)
{
    struct ip_addr own[2], ip;

    assert_int_equal(ip_parse(slice_str("172.17.0.2"), &own[0]), 0);
    assert_int_equal(ip_parse(slice_str("2001:db8::2"), &own[1]), 0);
    assert_int_equal(ip_parse(slice_str(addr), &ip), 0);
    return policy_check_address(p, &ip, 443, own, 2).allowed;
}

static void resolved_addresses(void **state)
{
    static const char *const closed[] = {
        "127.0.0.1",
        "127.255.1.2",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "224.0.0.1",
        "239.1.1.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "172.17.0.2",
        "2001:db8::2",
        "::ffff:172.17.0.2",
        "64:ff9b::172.17.0.2",
    };
    static const char *const private[] = {"10.1.1.1",    "172.16.0.1",    "172.31.255.255",
                                          "192.168.1.1", "100.64.0.1",    "fd00::1",
                                          "fec0::1",     "64:ff9b::a00:1"};
    static const char *const open[] = {"8.8.8.8",          "172.32.0.1",  "100.128.0.1", "2606::1",
                                       "64:ff9b::808:808", "192.169.0.1", "169.253.1.1", "fe00::1"};
    AUTO_POLICY struct policy p = POLICY("**");
    AUTO_POLICY struct policy exempt =
        policy_of(LIST("**", "127.0.0.1", "172.17.0.0/16"), LIST("172.17.0.9", "8.8.8.0/24:443"));
    AUTO_POLICY struct policy strict = POLICY("**", "10.0.0.0/8");

    (void)state;
    strict.allow_private = false;
    for (size_t i = 0; i < ARRAY_LEN(closed); i++)
        if (resolved_ok(&p, closed[i]))
            fail_msg("%s passed", closed[i]);
    for (size_t i = 0; i < ARRAY_LEN(private); i++) {
        assert_true(resolved_ok(&p, private[i]));
        if (resolved_ok(&strict, private[i]) != (i == 0))
            fail_msg("%s with allow_private off", private[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(open); i++)
        if (!resolved_ok(&p, open[i]) || !resolved_ok(&strict, open[i]))
            fail_msg("%s was dropped", open[i]);
    assert_true(resolved_ok(&exempt, "127.0.0.1"));
    assert_true(resolved_ok(&exempt, "172.17.0.2"));
    assert_false(resolved_ok(&exempt, "127.0.0.2"));
    assert_false(resolved_ok(&exempt, "172.17.0.9"));
    assert_false(resolved_ok(&exempt, "8.8.8.8"));
    assert_false(resolved_ok(&exempt, "64:ff9b::808:808"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_match_as_the_table_says),
        cmocka_unit_test(ports_restrict),
        cmocka_unit_test(bad_rules_name_the_intent),
        cmocka_unit_test(label_and_name_lengths),
        cmocka_unit_test(networks),
        cmocka_unit_test(tricks_do_not_bypass),
        cmocka_unit_test(bad_targets_are_refused),
        cmocka_unit_test(deny_wins_and_is_named),
        cmocka_unit_test(resolved_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
