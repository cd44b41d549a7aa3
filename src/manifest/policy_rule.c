#include "manifest/policy.h"

#include "base/text.h"

#include <stdio.h>

/* Entries are quoted in messages up to this length. */
#define QUOTE_MAX    120
#define QUOTE(slice) (int)((slice).len < QUOTE_MAX ? (slice).len : QUOTE_MAX), (slice).ptr

static struct slice sub(struct slice s, size_t from, size_t to)
{
    return slice_of(s.ptr + from, to - from);
}

static size_t find_byte(struct slice s, uint8_t byte)
{
    const uint8_t *at = s.len ? memchr(s.ptr, byte, s.len) : NULL;

    return at ? (size_t)(at - s.ptr) : s.len;
}

static size_t find_str(struct slice s, const char *needle)
{
    const uint8_t *at = s.ptr ? memmem(s.ptr, s.len, needle, strlen(needle)) : NULL;

    return at ? (size_t)(at - s.ptr) : s.len;
}

static size_t count_byte(struct slice s, uint8_t byte)
{
    size_t count = 0;

    for (size_t i = 0; i < s.len; i++)
        count += s.ptr[i] == byte;
    return count;
}

/* "scheme://user@host:port/path?query": the part that was meant. */
static struct slice host_of_url(struct slice url)
{
    size_t start = find_str(url, "://") + 3, end = start, at;

    while (end < url.len && !strchr("/?#", url.ptr[end]))
        end++;
    url = sub(url, start, end);
    at = find_byte(url, '@');
    return at < url.len ? sub(url, at + 1, url.len) : url;
}

/* What no kind of rule can contain, told in terms of what it looks like. */
static int check_bytes(struct slice text, struct error *err)
{
    size_t at;

    if (text.len == 0)
        return error_set(err, ERR_INVALID,
                         "empty entry: give a host name, a pattern or an IP network");
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];

        if (c <= 0x20 || c == 0x7f)
            return error_set(err, ERR_INVALID,
                             "\"%.*s\": white space and control characters cannot stand in a rule; "
                             "give one host or network for each list entry",
                             QUOTE(text));
        if (c >= 0x80)
            return error_set(err, ERR_INVALID,
                             "\"%.*s\": write international names in their ASCII form (xn--...)",
                             QUOTE(text));
    }
    if (find_str(text, "://") < text.len) {
        struct slice host = host_of_url(text);

        if (host.len == 0)
            return error_set(err, ERR_INVALID, "\"%.*s\": give a host name, not a URL",
                             QUOTE(text));
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": give a host name, not a URL: did you mean \"%.*s\"",
                         QUOTE(text), QUOTE(host));
    }
    at = find_byte(text, '@');
    if (at < text.len)
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": a rule has no user name: did you mean \"%.*s\"", QUOTE(text),
                         QUOTE(sub(text, at + 1, text.len)));
    if (text.len > POLICY_RULE_MAX)
        return error_set(err, ERR_INVALID, "\"%.*s...\": longer than %d bytes", QUOTE(text),
                         POLICY_RULE_MAX);
    return 0;
}

static int parse_ports(struct slice text, struct slice ports, struct policy_rule *rule,
                       struct error *err)
{
    size_t dash = find_byte(ports, '-');
    uint64_t low, high;

    if (parse_u64(sub(ports, 0, dash), UINT16_MAX, &low) < 0 || low == 0)
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": \"%.*s\" is not a port: write :PORT or :LOW-HIGH with numbers "
                         "from 1 to 65535, or leave it out for every port",
                         QUOTE(text), QUOTE(ports));
    high = low;
    if (dash < ports.len &&
        (parse_u64(sub(ports, dash + 1, ports.len), UINT16_MAX, &high) < 0 || high == 0))
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": \"%.*s\" is not a port range: write :LOW-HIGH with numbers "
                         "from 1 to 65535",
                         QUOTE(text), QUOTE(ports));
    if (high < low)
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": the range runs backwards: did you mean \"%u-%u\"", QUOTE(text),
                         (unsigned)high, (unsigned)low);
    rule->port_low = (uint16_t)low;
    rule->port_high = (uint16_t)high;
    return 0;
}

/* Prefix length of a netmask, or -1 when its ones are not all on the left. */
static int prefix_of_netmask(const struct ip_addr *mask)
{
    uint32_t value = get_be32(mask->bytes);
    int prefix = value ? __builtin_popcount(value) : 0;

    return prefix == 0 || value == UINT32_MAX << (32 - prefix) ? prefix : -1;
}

static int parse_prefix(struct slice text, struct slice len, struct policy_rule *rule,
                        struct error *err)
{
    unsigned max = rule->net.family == 4 ? 32 : 128;
    struct ip_addr mask;
    char addr[IP_TEXT_MAX];
    uint64_t prefix;
    int bits;

    if (parse_u64(len, max, &prefix) == 0) {
        rule->prefix = (uint8_t)prefix;
        return 0;
    }
    if (rule->net.family == 4 && ip_parse(len, &mask) == 0 && mask.family == 4) {
        bits = prefix_of_netmask(&mask);
        if (bits < 0)
            return error_set(err, ERR_INVALID,
                             "\"%.*s\": the netmask has holes: write the network as A.B.C.D/LENGTH",
                             QUOTE(text));
        rule->prefix = (uint8_t)bits;
        snprintf(rule->warning, sizeof(rule->warning),
                 "netmask notation is discouraged: write \"%s/%d\"", ip_format(&rule->net, addr),
                 bits);
        return 0;
    }
    return error_set(err, ERR_INVALID, "\"%.*s\": \"%.*s\" is not a prefix length from 0 to %u",
                     QUOTE(text), QUOTE(len), max);
}

/* The address is parsed and stands in rule->net; `len` is what follows the slash, if any. */
static int finish_net(struct slice text, const struct slice *len, struct policy_rule *rule,
                      struct error *err)
{
    struct ip_addr v4;
    char addr[IP_TEXT_MAX];

    rule->kind = POLICY_RULE_NET;
    rule->prefix = rule->net.family == 4 ? 32 : 128;
    if (len && parse_prefix(text, *len, rule, err) < 0)
        return -1;
    /* Targets in these spellings are checked as IPv4, so a rule must be IPv4 to ever match. */
    v4 = ip_unmap(&rule->net);
    if (rule->net.family == 6 && rule->prefix >= 96 && v4.family == 4) {
        rule->net = v4;
        rule->prefix = (uint8_t)(rule->prefix - 96);
        snprintf(rule->warning, sizeof(rule->warning), "taken as IPv4: write \"%s/%u\"",
                 ip_format(&v4, addr), rule->prefix);
    }
    return 0;
}

/* "[ADDR/LEN]" or "[ADDR/LEN]:PORTS" */
static int parse_bracketed(struct slice text, struct policy_rule *rule, struct error *err)
{
    size_t close = find_byte(text, ']'), slash;
    struct slice inner, len, rest;

    if (close == text.len)
        return error_set(err, ERR_INVALID, "\"%.*s\": the bracket is not closed", QUOTE(text));
    inner = sub(text, 1, close);
    rest = sub(text, close + 1, text.len);
    slash = find_byte(inner, '/');
    if (ip_parse(sub(inner, 0, slash), &rule->net) < 0 || rule->net.family != 6)
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": brackets are for IPv6 addresses, and \"%.*s\" is none",
                         QUOTE(text), QUOTE(inner));
    if (rest.len && rest.ptr[0] == '/')
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": the prefix length belongs inside the brackets", QUOTE(text));
    if (rest.len && rest.ptr[0] != ':')
        return error_set(err, ERR_INVALID, "\"%.*s\": only :PORT may follow the brackets",
                         QUOTE(text));
    if (rest.len && parse_ports(text, sub(rest, 1, rest.len), rule, err) < 0)
        return -1;
    len = slash < inner.len ? sub(inner, slash + 1, inner.len) : slice_of(NULL, 0);
    return finish_net(text, slash < inner.len ? &len : NULL, rule, err);
}

/* Two colons or more, no brackets: IPv6 without ports. */
static int parse_bare_ipv6(struct slice text, struct policy_rule *rule, struct error *err)
{
    size_t slash = find_byte(text, '/');
    struct slice len = slash < text.len ? sub(text, slash + 1, text.len) : slice_of(NULL, 0);

    if (find_byte(text, '%') < text.len)
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": a rule cannot name a zone (the part after %%)", QUOTE(text));
    if (ip_parse(sub(text, 0, slash), &rule->net) < 0)
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": not an IPv6 network; with a port, write "
                         "\"[2001:db8::/32]:443\"",
                         QUOTE(text));
    return finish_net(text, slash < text.len ? &len : NULL, rule, err);
}

static bool is_name_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

/* The label at [start, end) of the pattern holds a "*" that is not a wildcard of ours. */
static int bad_star(struct slice text, struct slice name, size_t start, size_t end,
                    struct error *err)
{
    bool deep = find_str(sub(name, start, end), "**") < end - start;

    if (start > 0 && deep && end < name.len)
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": \"**\" may only be the leftmost label: did you mean \"**%.*s\"",
                         QUOTE(text), QUOTE(sub(name, end, name.len)));
    return error_set(err, ERR_INVALID, "\"%.*s\": %s: did you mean \"%.*s%s%.*s\"", QUOTE(text),
                     deep && start > 0 ? "\"**\" may only be the leftmost label"
                                       : "a wildcard stands for a whole label",
                     QUOTE(sub(name, 0, start)), deep && start == 0 ? "**" : "*",
                     QUOTE(sub(name, end, name.len)));
}

static int empty_label(struct slice text, struct slice name, size_t start, size_t end,
                       struct error *err)
{
    if (start == 0 && name.len > 1 && name.ptr[1] != '.')
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": starts with a dot: did you mean \"**%.*s\" (every name below) "
                         "or \"%.*s\" (only that name)",
                         QUOTE(text), QUOTE(name), QUOTE(sub(name, 1, name.len)));
    if (end == name.len && name.len > 1 && name.ptr[name.len - 2] != '.')
        return error_set(err, ERR_INVALID, "\"%.*s\": ends with a dot: did you mean \"%.*s\"",
                         QUOTE(text), QUOTE(sub(name, 0, name.len - 1)));
    return error_set(err, ERR_INVALID, "\"%.*s\": there is nothing between two dots", QUOTE(text));
}

static int check_label(struct slice text, struct slice name, size_t start, size_t end,
                       struct policy_rule *rule, struct error *err)
{
    struct slice label = sub(name, start, end);

    if (label.len == 0)
        return empty_label(text, name, start, end, err);
    if (slice_equal_str(label, "*") || (slice_equal_str(label, "**") && start == 0)) {
        rule->wildcard = true;
        return 0;
    }
    if (find_byte(label, '*') < label.len)
        return bad_star(text, name, start, end, err);
    for (size_t i = 0; i < label.len; i++)
        if (!is_name_byte(label.ptr[i]))
            return error_set(err, ERR_INVALID, "\"%.*s\": \"%c\" cannot stand in a host name",
                             QUOTE(text), label.ptr[i]);
    if (label.len > 63)
        return error_set(err, ERR_INVALID, "\"%.*s\": the label \"%.*s\" is longer than 63 bytes",
                         QUOTE(text), QUOTE(label));
    return 0;
}

/* Resolvers take names whose last label looks like a number for IPv4 addresses. */
static int check_not_numeric(struct slice text, struct slice name, struct error *err)
{
    const uint8_t *dot = memrchr(name.ptr, '.', name.len);
    struct slice last = dot ? sub(name, (size_t)(dot - name.ptr) + 1, name.len) : name;
    char addr[IP_TEXT_MAX];
    struct ip_addr v4;
    bool digits = true;

    for (size_t i = 0; i < last.len; i++)
        digits = digits && last.ptr[i] >= '0' && last.ptr[i] <= '9';
    if (!digits && !(last.len >= 2 && last.ptr[0] == '0' && (last.ptr[1] | 0x20) == 'x'))
        return 0;
    if (ip_parse_classic(name, &v4) == 0)
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": write IPv4 addresses as four decimal numbers: did you mean "
                         "\"%s\"",
                         QUOTE(text), ip_format(&v4, addr));
    return error_set(err, ERR_INVALID,
                     "\"%.*s\": ends in a number but is not an IPv4 address; for a network write "
                     "A.B.C.D/LENGTH",
                     QUOTE(text));
}

static int parse_name(struct slice text, struct slice name, struct policy_rule *rule,
                      struct error *err)
{
    size_t start = 0;

    if (name.len == 0)
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": a port alone is no rule: did you mean \"**%.*s\"", QUOTE(text),
                         QUOTE(text));
    if (name.len > POLICY_NAME_MAX)
        return error_set(err, ERR_INVALID, "\"%.*s...\": names have at most %d bytes", QUOTE(text),
                         POLICY_NAME_MAX);
    for (size_t i = 0; i <= name.len; i++) {
        if (i < name.len && name.ptr[i] != '.')
            continue;
        if (check_label(text, name, start, i, rule, err) < 0)
            return -1;
        start = i + 1;
    }
    if (check_not_numeric(text, name, err) < 0)
        return -1;
    rule->kind = POLICY_RULE_NAME;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.ptr[i];

        rule->pattern[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    return 0;
}

/* At most one colon, no brackets: a name or an IPv4 network, with ports after the colon. */
static int parse_plain(struct slice text, struct policy_rule *rule, struct error *err)
{
    size_t colon = find_byte(text, ':'), slash;
    struct slice host = sub(text, 0, colon), len;

    slash = find_byte(text, '/');
    if (slash < text.len && (slash > colon || ip_parse(sub(text, 0, slash), &rule->net) < 0))
        return error_set(err, ERR_INVALID,
                         "\"%.*s\": a rule names a host, not a path: did you mean \"%.*s\"",
                         QUOTE(text), QUOTE(sub(text, 0, slash)));
    if (colon < text.len && parse_ports(text, sub(text, colon + 1, text.len), rule, err) < 0)
        return -1;
    if (slash < text.len) {
        len = sub(host, slash + 1, host.len);
        return finish_net(text, &len, rule, err);
    }
    if (ip_parse(host, &rule->net) == 0)
        return finish_net(text, NULL, rule, err);
    return parse_name(text, host, rule, err);
}

int policy_rule_parse(struct slice text, struct policy_rule *out, struct error *err)
{
    struct policy_rule rule = {.port_low = 1, .port_high = UINT16_MAX};
    int rc;

    if (check_bytes(text, err) < 0)
        return -1;
    if (text.ptr[0] == '[')
        rc = parse_bracketed(text, &rule, err);
    else if (count_byte(text, ':') > 1)
        rc = parse_bare_ipv6(text, &rule, err);
    else
        rc = parse_plain(text, &rule, err);
    if (rc < 0)
        return -1;
    memcpy(rule.text, text.ptr, text.len);
    *out = rule;
    return 0;
}

bool policy_rule_is_all(const struct policy_rule *rule)
{
    if (rule->kind == POLICY_RULE_NET)
        return rule->prefix == 0;
    return strcmp(rule->pattern, "**") == 0;
}
