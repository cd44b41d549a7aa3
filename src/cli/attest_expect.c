#include "cli/attest_expect.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/attest.h"
#include "crypto/pem.h"
#include "eif/eif.h"

#include <stdio.h>
#include <string.h>

#define SECONDS_MAX UINT64_C(253402300799) /* the end of the year 9999 */

struct attest_expect attest_expect_init(const struct subcommand *cmd)
{
    return (struct attest_expect){
        .cmd = cmd,
        .policy = {.verify_time = clock_real_ns() / 1000000000},
        .anchor = attest_anchor_aws,
        .lines = stdout,
    };
}

void attest_expect_free(struct attest_expect *expect)
{
    buf_free(&expect->root_der);
}

/* N=HEX */
static int add_pcr(struct attest_expect *e, const char *text, struct error *err)
{
    const char *equals = strchr(text, '='), *digits;
    uint8_t value[ATTEST_PCR_LEN];
    uint64_t index;

    if (!equals ||
        parse_u64(slice_of(text, (size_t)(equals - text)), ATTEST_PCR_COUNT - 1, &index) < 0)
        return error_set(err, ERR_USAGE, "%s: --pcr wants N=HEX with N from 0 to 31", e->cmd->name);
    digits = strncmp(equals + 1, "0x", 2) == 0 ? equals + 3 : equals + 1;
    if (hex_decode(slice_str(digits), value, sizeof(value)) < 0)
        return error_set(err, ERR_USAGE, "%s: --pcr %u=... wants 96 hex digits", e->cmd->name,
                         (unsigned int)index);
    if (attest_policy_expect_pcr(&e->policy, (unsigned int)index, value, err) < 0)
        return error_wrap(err, "%s: --pcr", e->cmd->name);
    return 0;
}

/* What an enclave that runs this image reports; its PCR8 only when the file is signed. */
static int add_image(struct attest_expect *e, const char *path, struct error *err)
{
    struct eif_measurements m;

    if (eif_measure_file(path, &m, err) < 0)
        return error_wrap(err, "--eif");
    if (attest_policy_expect_pcr(&e->policy, 0, m.pcr0, err) < 0 ||
        attest_policy_expect_pcr(&e->policy, 1, m.pcr1, err) < 0 ||
        attest_policy_expect_pcr(&e->policy, 2, m.pcr2, err) < 0 ||
        (m.has_signature && attest_policy_expect_pcr(&e->policy, 8, m.pcr8, err) < 0))
        return error_wrap(err, "%s: --eif", e->cmd->name);
    return 0;
}

static int set_root(struct attest_expect *e, const char *path, struct error *err)
{
    AUTO_BUF struct buf text = BUF(ATTEST_INPUT_MAX);

    if (e->root_der.len > 0)
        return error_set(err, ERR_USAGE, "%s: --root is given twice", e->cmd->name);
    e->root_der = BUF(ATTEST_INPUT_MAX);
    if (file_read(path, &text, err) < 0)
        return error_wrap(err, "--root");
    if (pem_decode("CERTIFICATE", buf_slice(&text), &e->root_der, err) < 0)
        return error_wrap(err, "--root: %s", path);
    e->anchor = (struct attest_anchor){.name = path, .der = buf_slice(&e->root_der)};
    if (!slice_equal(e->anchor.der, attest_anchor_aws.der))
        fprintf(stderr,
                "capsule-cli: warning: %s is not AWS's root: documents under it prove nothing "
                "about Nitro hardware\n",
                path);
    return 0;
}

static int set_seconds(const struct attest_expect *e, const char *option, const char *text,
                       uint64_t *out, struct error *err)
{
    if (parse_u64(slice_str(text), SECONDS_MAX, out) < 0)
        return error_set(err, ERR_USAGE, "%s: %s wants a whole number of seconds", e->cmd->name,
                         option);
    return 0;
}

static int take_option(struct attest_expect *e, int option, const char *value, struct error *err)
{
    uint64_t seconds;

    switch (option) {
    case ATTEST_OPTION_ROOT:
        return set_root(e, value, err);
    case ATTEST_OPTION_AT:
        if (set_seconds(e, "--at", value, &seconds, err) < 0)
            return -1;
        e->policy.verify_time = (int64_t)seconds;
        return 0;
    case ATTEST_OPTION_MAX_AGE:
        if (set_seconds(e, "--max-age", value, &seconds, err) < 0)
            return -1;
        e->policy.limit_age = true;
        e->policy.max_age_ms = seconds * 1000;
        return 0;
    case ATTEST_OPTION_PCR:
        return add_pcr(e, value, err);
    case ATTEST_OPTION_EIF:
        return add_image(e, value, err);
    default:
        e->policy.allow_debug = true;
        return 0;
    }
}

int attest_expect_option(struct attest_expect *expect, int option, const char *value,
                         struct error *err)
{
    if (option < ATTEST_OPTION_ROOT || option > ATTEST_OPTION_DEBUG)
        return 0;
    if (take_option(expect, option, value, err) < 0) {
        if (err->kind == ERR_USAGE)
            error_hint(err, "see capsule-cli %s --help", expect->cmd->name);
        return -1;
    }
    return 1;
}

/* Images that nobody signed have a PCR8 of zeros. */
static bool names_signer(const struct attest_policy *policy)
{
    static const uint8_t unsigned_image[ATTEST_PCR_LEN];

    return policy->pcrs >> 8 & 1 && memcmp(policy->pcr[8], unsigned_image, ATTEST_PCR_LEN) != 0;
}

bool attest_expect_names_image(const struct attest_expect *expect)
{
    const uint32_t parts = 1u << 1 | 1u << 2;
    uint32_t pcrs = expect->policy.pcrs;

    return pcrs & 1 || (pcrs & parts) == parts || names_signer(&expect->policy);
}

static void print_passed(void *arg, const char *check)
{
    fprintf(arg, "ok: %s\n", check);
}

bool attest_expect_verify(const struct attest_expect *expect, struct slice document,
                          struct attest_document *doc)
{
    const struct attest_observer observer = {.passed = print_passed, .arg = expect->lines};
    struct error reason = {0};
    enum attest_failure why;
    int ret =
        attest_verify(document, &expect->anchor, &expect->policy, &observer, doc, &why, &reason);

    fflush(expect->lines);
    if (ret == 0)
        return true;
    fprintf(stderr, "rejected: %s: %s\n", attest_failure_name(why), reason.msg);
    if (why == ATTEST_CHAIN_ROOT && expect->root_der.len == 0)
        fprintf(stderr, "capsule-cli: hint: a document of a development NSM needs --root with its "
                        "root.pem, and proves nothing about hardware\n");
    if (why == ATTEST_CHAIN_VALIDITY)
        fprintf(stderr, "capsule-cli: hint: for a stored document give --at its own time, see "
                        "`capsule-cli attest show`\n");
    return false;
}
