/* One input is a rule and a target, split at the first newline. */
#include "manifest/policy.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is sent on must be read back as the same thing, else two checks see two targets. */
static void check_stable(const struct policy_target *t)
{
    struct policy_target again;
    struct error err;

    if (policy_target_normalise(slice_str(t->host), t->port, &again, &err) < 0)
        abort();
    if (again.is_addr != t->is_addr || strcmp(again.host, t->host) != 0 ||
        (t->is_addr && !ip_equal(&again.addr, &t->addr)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    size_t cut = line ? (size_t)(line - data) : size;
    struct slice host = line ? slice_of(line + 1, size - cut - 1) : slice_of(NULL, 0);
    struct policy_rule rule, again;
    struct policy_target target;
    struct policy p = POLICY_NONE;
    struct policy_verdict v;
    struct error err;
    char text[512];

    if (policy_rule_parse(slice_of(data, cut), &rule, &err) < 0)
        return 0;
    if (policy_rule_parse(slice_str(rule.text), &again, &err) < 0 || again.kind != rule.kind ||
        strcmp(again.pattern, rule.pattern) != 0 || again.prefix != rule.prefix)
        abort();
    if (policy_target_normalise(host, 443, &target, &err) < 0)
        return 0;
    check_stable(&target);
    policy_add_allow(&p, &rule);
    v = policy_check(&p, &target);
    policy_verdict_text(&v, target.host, target.port, text, sizeof(text));
    if (v.allowed && (rule.kind == POLICY_RULE_NET) != target.is_addr)
        abort();
    if (target.is_addr) {
        v = policy_check_address(&p, &target.addr, target.port, NULL, 0);
        policy_verdict_text(&v, target.host, target.port, text, sizeof(text));
    }
    policy_free(&p);
    return 0;
}
