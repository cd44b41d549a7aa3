#include "manifest/policy.h"

#include <stdio.h>

static void add(struct policy_rule **list, size_t *count, const struct policy_rule *rule)
{
    *list = xreallocarray(*list, *count + 1, sizeof(**list));
    (*list)[(*count)++] = *rule;
}

void policy_add_allow(struct policy *p, const struct policy_rule *rule)
{
    add(&p->allow, &p->allow_count, rule);
}

void policy_add_deny(struct policy *p, const struct policy_rule *rule)
{
    add(&p->deny, &p->deny_count, rule);
}

void policy_free(struct policy *p)
{
    free(p->allow);
    free(p->deny);
    *p = POLICY_NONE;
}

/* ---- targets ---- */

/* Step 1 for names; `host` has lost its final dot. */
static int check_name(struct slice host, struct error *err)
{
    size_t label = 0;

    if (host.len == 0 || host.len > POLICY_NAME_MAX)
        return error_set(err, ERR_INVALID, "the host name must have 1 to %d bytes",
                         POLICY_NAME_MAX);
    for (size_t i = 0; i <= host.len; i++) {
        uint8_t c = i < host.len ? host.ptr[i] : '.';

        if (c == '.') {
            if (label == 0 || label > 63)
                return error_set(err, ERR_INVALID,
                                 "each label of a host name must have 1 to 63 bytes");
            label = 0;
        } else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                   c == '-' || c == '_') {
            label++;
        } else if (c == '@') {
            return error_set(err, ERR_INVALID, "user names cannot stand in a target");
        } else {
            return error_set(err, ERR_INVALID, "byte 0x%02x cannot stand in a host name", c);
        }
    }
    return 0;
}

/* Step 3: resolvers take such names for IPv4 addresses. `host` is lower case. */
static bool is_numeric(const char *host)
{
    const char *last = strrchr(host, '.');

    last = last ? last + 1 : host;
    return strspn(last, "0123456789") == strlen(last) || strncmp(last, "0x", 2) == 0;
}

static void set_addr(struct policy_target *target, const struct ip_addr *addr)
{
    char text[IP_TEXT_MAX];

    target->is_addr = true;
    target->addr = ip_unmap(addr);
    target->embedded_count = ip_embedded(&target->addr, target->embedded);
    snprintf(target->host, sizeof(target->host), "%s", ip_format(&target->addr, text));
}

static int normalise_name(struct slice host, struct policy_target *target, struct error *err)
{
    struct ip_addr addr;

    if (host.len > 1 && host.ptr[host.len - 1] == '.')
        host.len--;
    if (check_name(host, err) < 0)
        return -1;
    for (size_t i = 0; i < host.len; i++) {
        uint8_t c = host.ptr[i];

        target->host[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    target->host[host.len] = '\0';
    if (!is_numeric(target->host))
        return 0;
    if (ip_parse_classic(slice_str(target->host), &addr) < 0)
        return error_set(err, ERR_INVALID,
                         "\"%s\" ends in a number but is not an IPv4 address in any spelling",
                         target->host);
    set_addr(target, &addr);
    return 0;
}

int policy_target_normalise(struct slice host, uint32_t port, struct policy_target *out,
                            struct error *err)
{
    struct policy_target target = {0};
    struct ip_addr addr;
    bool bracketed = host.len > 0 && host.ptr[0] == '[';

    if (port == 0 || port > UINT16_MAX)
        return error_set(err, ERR_INVALID, "the port must be from 1 to 65535");
    if (bracketed) {
        if (host.len < 2 || host.ptr[host.len - 1] != ']')
            return error_set(err, ERR_INVALID, "the brackets around the host do not pair");
        host = slice_of(host.ptr + 1, host.len - 2);
    }
    if (bracketed || (host.len && memchr(host.ptr, ':', host.len))) {
        /* inet_pton() takes no zone, so "%" ends here as well. */
        if (ip_parse(host, &addr) < 0 || addr.family != 6)
            return error_set(err, ERR_INVALID, "the host is not an IPv6 address");
        set_addr(&target, &addr);
    } else if (normalise_name(host, &target, err) < 0) {
        return -1;
    }
    target.port = (uint16_t)port;
    *out = target;
    return 0;
}

/* ---- decisions ---- */

/* Cuts the rightmost label off; neither patterns nor checked names have empty ones. */
static struct slice cut_label(struct slice *rest)
{
    const uint8_t *dot = memrchr(rest->ptr, '.', rest->len);
    size_t start = dot ? (size_t)(dot - rest->ptr) + 1 : 0;
    struct slice label = slice_of(rest->ptr + start, rest->len - start);

    rest->len = dot ? start - 1 : 0;
    return label;
}

static bool name_matches(const char *pattern, const char *name)
{
    struct slice p = slice_str(pattern), n = slice_str(name);

    while (p.len && n.len) {
        struct slice want = cut_label(&p), have;

        if (slice_equal_str(want, "**"))
            return true;
        have = cut_label(&n);
        if (!slice_equal_str(want, "*") && !slice_equal(want, have))
            return false;
    }
    return p.len == 0 && n.len == 0;
}

static bool port_matches(const struct policy_rule *rule, uint16_t port)
{
    return port >= rule->port_low && port <= rule->port_high;
}

static const struct policy_rule *find_net(const struct policy_rule *rules, size_t count,
                                          const struct ip_addr *addr, uint16_t port)
{
    for (size_t i = 0; i < count; i++)
        if (rules[i].kind == POLICY_RULE_NET && port_matches(&rules[i], port) &&
            ip_in_net(addr, &rules[i].net, rules[i].prefix))
            return &rules[i];
    return NULL;
}

static const struct policy_rule *find_name(const struct policy_rule *rules, size_t count,
                                           const char *name, uint16_t port, bool wildcards)
{
    for (size_t i = 0; i < count; i++)
        if (rules[i].kind == POLICY_RULE_NAME && (wildcards || !rules[i].wildcard) &&
            port_matches(&rules[i], port) && name_matches(rules[i].pattern, name))
            return &rules[i];
    return NULL;
}

/* Names that do not mean a machine elsewhere. */
static bool is_local_name(const char *name)
{
    static const char suffix[] = ".localhost";
    size_t len = strlen(name);

    return strcmp(name, "host") == 0 || strcmp(name, "localhost") == 0 ||
           (len >= sizeof(suffix) && strcmp(name + len - (sizeof(suffix) - 1), suffix) == 0);
}

static struct policy_verdict decide(const struct policy_rule *allow, const struct policy_rule *deny)
{
    return (struct policy_verdict){.allowed = allow && !deny, .rule = deny ? deny : allow};
}

/* The deny rule for an address or for one it carries inside. */
static const struct policy_rule *find_deny(const struct policy *p, const struct ip_addr *addr,
                                           const struct ip_addr *embedded, size_t count,
                                           uint16_t port)
{
    const struct policy_rule *deny = find_net(p->deny, p->deny_count, addr, port);

    for (size_t i = 0; i < count && !deny; i++)
        deny = find_net(p->deny, p->deny_count, &embedded[i], port);
    return deny;
}

struct policy_verdict policy_check(const struct policy *p, const struct policy_target *t)
{
    if (t->is_addr)
        return decide(find_net(p->allow, p->allow_count, &t->addr, t->port),
                      find_deny(p, &t->addr, t->embedded, t->embedded_count, t->port));
    return decide(find_name(p->allow, p->allow_count, t->host, t->port, !is_local_name(t->host)),
                  find_name(p->deny, p->deny_count, t->host, t->port, true));
}

static bool scope_is_closed(const struct policy *p, enum ip_scope scope)
{
    return scope != IP_GLOBAL && (scope != IP_PRIVATE || !p->allow_private);
}

struct policy_verdict policy_check_address(const struct policy *p, const struct ip_addr *addr,
                                           uint16_t port, const struct ip_addr *own,
                                           size_t own_count)
{
    struct ip_addr seen[1 + IP_EMBEDDED_MAX] = {ip_unmap(addr)};
    size_t count = 1 + ip_embedded(&seen[0], seen + 1);
    struct policy_verdict v = {.allowed = true};
    const struct policy_rule *allow;

    v.rule = find_deny(p, &seen[0], seen + 1, count - 1, port);
    if (v.rule) {
        v.allowed = false;
        return v;
    }
    allow = find_net(p->allow, p->allow_count, &seen[0], port);
    if (allow) {
        v.rule = allow;
        return v;
    }
    for (size_t i = 0; i < count; i++) {
        enum ip_scope scope = ip_scope(&seen[i]);

        for (size_t k = 0; k < own_count; k++)
            v.own = v.own || ip_equal(&seen[i], &own[k]);
        if (scope_is_closed(p, scope))
            v.scope = scope;
        if (v.own || v.scope != IP_GLOBAL) {
            v.allowed = false;
            return v;
        }
    }
    return v;
}

void policy_verdict_text(const struct policy_verdict *v, const char *host, uint16_t port, char *out,
                         size_t size)
{
    bool v6 = strchr(host, ':') != NULL;
    const char *open = v6 ? "[" : "", *close = v6 ? "]" : "";

    if (v->rule)
        snprintf(out, size, "rule \"%s\" %s %s%s%s:%u", v->rule->text,
                 v->allowed ? "allows" : "denies", open, host, close, port);
    else if (v->own)
        snprintf(out, size, "%s is an address of the host itself, and no IP allow rule covers it",
                 host);
    else if (v->scope != IP_GLOBAL)
        snprintf(out, size, "%s is a %s address, and no IP allow rule covers it", host,
                 ip_scope_name(v->scope));
    else
        snprintf(out, size, "no allow rule matches %s%s%s:%u", open, host, close, port);
}
