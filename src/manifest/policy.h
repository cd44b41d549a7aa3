/*
 * The egress policy: rule grammar and decisions of spec/wire-protocols.md section 6. The enclave
 * calls policy_target_normalise() and policy_check() (steps 1 to 6 of 6.5) before it connects; the
 * host calls policy_check_address() (steps 7 and 8) on every address a name resolved to.
 */
#ifndef CAPSULE_MANIFEST_POLICY_H
#define CAPSULE_MANIFEST_POLICY_H

#include "base/error.h"
#include "base/slice.h"
#include "codec/ip.h"

#define POLICY_NAME_MAX 253 /* RFC 1035 section 2.3.4, as text without the final dot */
#define POLICY_RULE_MAX 272 /* longest rule: a name and ":65535-65535" */

enum policy_rule_kind {
    POLICY_RULE_NAME, /* a domain pattern: only matches names */
    POLICY_RULE_NET,  /* an IP network: only matches addresses */
};

/* Plain data without pointers: copy it freely. */
struct policy_rule {
    enum policy_rule_kind kind;
    char text[POLICY_RULE_MAX + 1];    /* as written, for messages */
    char pattern[POLICY_NAME_MAX + 1]; /* NAME: lower case, without port suffix */
    bool wildcard;                     /* NAME: some label is "*" or "**" */
    struct ip_addr net;                /* NET */
    uint8_t prefix;                    /* NET: leading bits that count */
    uint16_t port_low, port_high;      /* inclusive; 1 and 65535 when the rule names no port */
    char warning[160];                 /* accepted, but to be told the user; empty: nothing */
};

/*
 * Parses one entry of `egress.allow` or `egress.deny`:
 *   NAME       labels of [A-Za-z0-9_-]; "*" for one label; "**" leftmost, for one or more
 *   A.B.C.D[/LEN], IPV6[/LEN]; A.B.C.D/NETMASK sets `warning`
 *   each with an optional ":PORT" or ":LOW-HIGH"; an IPv6 network then stands in brackets:
 *   "[2001:db8::/32]:443"
 * ERR_INVALID says what is wrong with the entry and what was probably meant. Nothing of *out is
 * set then.
 */
int policy_rule_parse(struct slice text, struct policy_rule *out, struct error *err);
/* True for rules that let everything of their kind through: "**", 0.0.0.0/0, ::/0 (any ports). */
bool policy_rule_is_all(const struct policy_rule *rule);

/* Egress is on when there is at least one allow rule. */
struct policy {
    struct policy_rule *allow;
    size_t allow_count;
    struct policy_rule *deny;
    size_t deny_count;
    bool allow_private; /* whether names may resolve to private addresses */
};
#define POLICY_NONE ((struct policy){.allow_private = true})

/* Append a copy of the rule. */
void policy_add_allow(struct policy *p, const struct policy_rule *rule);
void policy_add_deny(struct policy *p, const struct policy_rule *rule);
/* Frees the rules; *p is POLICY_NONE afterwards. */
void policy_free(struct policy *p);

/* Where a request wants to go, in the one spelling that is checked and sent. Plain data. */
struct policy_target {
    bool is_addr;
    struct ip_addr addr; /* when is_addr */
    /* IPv4 addresses inside an IPv6 one; deny rules count for them too */
    struct ip_addr embedded[IP_EMBEDDED_MAX];
    size_t embedded_count;
    char host[POLICY_NAME_MAX + 1]; /* lower-case name without final dot, or the address's
                                       canonical text without brackets */
    uint16_t port;
};

/*
 * Steps 1 to 4 of 6.5. `host` is as the client wrote it, IPv6 with or without brackets. ERR_INVALID
 * for anything that is neither a plain name nor an address; nothing of *out is set then.
 */
int policy_target_normalise(struct slice host, uint32_t port, struct policy_target *out,
                            struct error *err);

struct policy_verdict {
    bool allowed;
    /* The rule that decided, borrowed from the policy: the allow rule, the deny rule, or NULL when
       no allow rule matches. */
    const struct policy_rule *rule;
    enum ip_scope scope; /* refused because of this range when not IP_GLOBAL (addresses only) */
    bool own;            /* refused because the address is the host's own */
};

/*
 * Steps 5 and 6: allowed when an allow rule of the target's kind matches and no deny rule does.
 * "host", "localhost" and names below "localhost" are allowed by rules without wildcards only;
 * deny rules count with their wildcards for them as well.
 */
struct policy_verdict policy_check(const struct policy *p, const struct policy_target *target);

/*
 * Steps 7 and 8, on the host: whether a connection to this address may be made for a name. Refuses
 * what an IP deny rule matches; then, unless an IP allow rule covers it, loopback, unspecified,
 * link-local, multicast, broadcast, the `own_count` own addresses and, without allow_private,
 * private ranges. IPv4 inside IPv6 counts as itself.
 */
struct policy_verdict policy_check_address(const struct policy *p, const struct ip_addr *addr,
                                           uint16_t port, const struct ip_addr *own,
                                           size_t own_count);

/* One phrase on a refusal, for replies and logs: `rule "evil.com" denies evil.com:443`. */
void policy_verdict_text(const struct policy_verdict *v, const char *host, uint16_t port, char *out,
                         size_t size);

#endif
