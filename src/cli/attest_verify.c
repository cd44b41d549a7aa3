#include "cli/attest.h"

#include "attest/verify.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "crypto/pem.h"
#include "eif/eif.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define SECONDS_MAX UINT64_C(253402300799) /* the end of the year 9999 */

/* The options, and the bytes that policy and anchor point into. */
struct request {
    struct attest_policy policy;
    struct attest_anchor anchor;
    struct buf root_der;
    struct buf nonce, user_data, public_key;
};

static void request_free(struct request *r)
{
    buf_free(&r->root_der);
    buf_free(&r->nonce);
    buf_free(&r->user_data);
    buf_free(&r->public_key);
}

/* N=HEX */
static int add_pcr(struct request *r, const char *text, struct error *err)
{
    const char *equals = strchr(text, '='), *digits;
    uint8_t value[ATTEST_PCR_LEN];
    uint64_t index;

    if (!equals ||
        parse_u64(slice_of(text, (size_t)(equals - text)), ATTEST_PCR_COUNT - 1, &index) < 0)
        return error_set(err, ERR_USAGE, "attest: --pcr wants N=HEX with N from 0 to 31");
    digits = strncmp(equals + 1, "0x", 2) == 0 ? equals + 3 : equals + 1;
    if (hex_decode(slice_str(digits), value, sizeof(value)) < 0)
        return error_set(err, ERR_USAGE, "attest: --pcr %u=... wants 96 hex digits",
                         (unsigned int)index);
    if (attest_policy_expect_pcr(&r->policy, (unsigned int)index, value, err) < 0)
        return error_wrap(err, "attest: --pcr");
    return 0;
}

/* What an enclave that runs this image reports; its PCR8 only when the file is signed. */
static int add_image(struct request *r, const char *path, struct error *err)
{
    struct eif_measurements m;

    if (eif_measure_file(path, &m, err) < 0)
        return error_wrap(err, "--eif");
    if (attest_policy_expect_pcr(&r->policy, 0, m.pcr0, err) < 0 ||
        attest_policy_expect_pcr(&r->policy, 1, m.pcr1, err) < 0 ||
        attest_policy_expect_pcr(&r->policy, 2, m.pcr2, err) < 0 ||
        (m.has_signature && attest_policy_expect_pcr(&r->policy, 8, m.pcr8, err) < 0))
        return error_wrap(err, "attest: --eif");
    return 0;
}

static int set_root(struct request *r, const char *path, struct error *err)
{
    AUTO_BUF struct buf text = BUF(ATTEST_INPUT_MAX);

    if (r->root_der.len > 0)
        return error_set(err, ERR_USAGE, "attest: --root is given twice");
    r->root_der = BUF(ATTEST_INPUT_MAX);
    if (file_read(path, &text, err) < 0)
        return error_wrap(err, "--root");
    if (pem_decode("CERTIFICATE", buf_slice(&text), &r->root_der, err) < 0)
        return error_wrap(err, "--root: %s", path);
    r->anchor = (struct attest_anchor){.name = path, .der = buf_slice(&r->root_der)};
    if (!slice_equal(r->anchor.der, attest_anchor_aws.der))
        fprintf(stderr,
                "capsule-cli: warning: %s is not AWS's root: documents under it prove nothing "
                "about Nitro hardware\n",
                path);
    return 0;
}

static int set_seconds(const char *option, const char *text, uint64_t *out, struct error *err)
{
    if (parse_u64(slice_str(text), SECONDS_MAX, out) < 0)
        return error_set(err, ERR_USAGE, "attest: %s wants a whole number of seconds", option);
    return 0;
}

static int set_expected(const char *option, const char *text, struct buf *bytes,
                        struct attest_option *out, struct error *err)
{
    if (attest_hex_option(option, text, ATTEST_OPTION_MAX, bytes, &out->present, err) < 0)
        return -1;
    out->bytes = buf_slice(bytes);
    return 0;
}

static int take_option(struct request *r, int c, const char *value, struct error *err)
{
    uint64_t seconds;

    switch (c) {
    case 'r':
        return set_root(r, value, err);
    case 't':
        if (set_seconds("--at", value, &seconds, err) < 0)
            return -1;
        r->policy.verify_time = (int64_t)seconds;
        return 0;
    case 'm':
        if (set_seconds("--max-age", value, &seconds, err) < 0)
            return -1;
        r->policy.limit_age = true;
        r->policy.max_age_ms = seconds * 1000;
        return 0;
    case 'n':
        return set_expected("--nonce", value, &r->nonce, &r->policy.nonce, err);
    case 'u':
        return set_expected("--user-data", value, &r->user_data, &r->policy.user_data, err);
    case 'k':
        return set_expected("--public-key", value, &r->public_key, &r->policy.public_key, err);
    case 'p':
        return add_pcr(r, value, err);
    case 'e':
        return add_image(r, value, err);
    default:
        r->policy.allow_debug = true;
        return 0;
    }
}

/* Returns the name of the file, or NULL with *err. */
static const char *parse(struct request *r, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"root", required_argument, NULL, 'r'},      {"at", required_argument, NULL, 't'},
        {"max-age", required_argument, NULL, 'm'},   {"nonce", required_argument, NULL, 'n'},
        {"user-data", required_argument, NULL, 'u'}, {"public-key", required_argument, NULL, 'k'},
        {"pcr", required_argument, NULL, 'p'},       {"eif", required_argument, NULL, 'e'},
        {"allow-debug", no_argument, NULL, 'd'},     {0},
    };
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (c == '?' || c == ':') {
            cli_option_error(&cmd_attest, c, argv, err);
            return NULL;
        }
        if (take_option(r, c, optarg, err) < 0) {
            if (err->kind == ERR_USAGE)
                error_hint(err, "see capsule-cli attest --help");
            return NULL;
        }
    }
    if (argc - optind != 1) {
        cli_usage_error(&cmd_attest, argv, err, "verify wants one file, or - for standard input");
        return NULL;
    }
    return argv[optind];
}

static void print_passed(void *arg, const char *check)
{
    (void)arg;
    printf("ok: %s\n", check);
}

/* What an accepted document does not prove, because nobody asked. */
static void warn_of_gaps(const struct attest_policy *policy)
{
    const uint32_t image = 1u << 0, parts = 1u << 1 | 1u << 2, signer = 1u << 8;

    if (!(policy->pcrs & (image | signer)) && (policy->pcrs & parts) != parts)
        fprintf(stderr,
                "capsule-cli: warning: no image was expected (--eif, --pcr 0, --pcr 1 and 2, "
                "or --pcr 8): any enclave's document would pass\n");
    if (!policy->nonce.present)
        fprintf(stderr, "capsule-cli: warning: no nonce was expected (--nonce): the document may "
                        "have been recorded earlier\n");
}

static int verify(const char *path, const struct request *r, struct error *err)
{
    const struct attest_observer observer = {.passed = print_passed};
    AUTO_BUF struct buf bytes = BUF(ATTEST_INPUT_MAX);
    struct error reason = {0};
    struct attest_document doc;
    enum attest_failure why;

    if (attest_load(path, &bytes, err) < 0)
        return -1;
    if (attest_verify(buf_slice(&bytes), &r->anchor, &r->policy, &observer, &doc, &why, &reason) ==
        0) {
        fflush(stdout);
        warn_of_gaps(&r->policy);
        return 0;
    }
    fflush(stdout);
    fprintf(stderr, "rejected: %s: %s\n", attest_failure_name(why), reason.msg);
    if (why == ATTEST_CHAIN_ROOT && r->root_der.len == 0)
        fprintf(stderr, "capsule-cli: hint: a document of a development NSM needs --root with its "
                        "root.pem, and proves nothing about hardware\n");
    if (why == ATTEST_CHAIN_VALIDITY)
        fprintf(stderr, "capsule-cli: hint: for a stored document give --at its own time, see "
                        "`capsule-cli attest show`\n");
    return 1;
}

int attest_verify_file(int argc, char **argv, struct error *err)
{
    struct request r = {.policy = {.verify_time = clock_real_ns() / 1000000000},
                        .anchor = attest_anchor_aws};
    const char *path = parse(&r, argc, argv, err);
    int ret = path ? verify(path, &r, err) : -1;

    request_free(&r);
    return ret;
}
