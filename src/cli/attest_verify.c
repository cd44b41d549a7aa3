#include "cli/attest.h"
#include "cli/attest_expect.h"

#include <getopt.h>
#include <stdio.h>

struct request {
    struct attest_expect expect;
    struct buf nonce, user_data, public_key; /* what the policy points into */
};

static int set_expected(const char *option, const char *text, struct buf *bytes,
                        struct attest_option *out, struct error *err)
{
    if (attest_hex_option(option, text, ATTEST_OPTION_MAX, bytes, &out->present, err) < 0) {
        error_hint(err, "see capsule-cli attest --help");
        return -1;
    }
    out->bytes = buf_slice(bytes);
    return 0;
}

/* As attest_expect_option(). */
static int take_option(struct request *r, int c, const char *value, struct error *err)
{
    struct attest_policy *policy = &r->expect.policy;

    switch (c) {
    case 'n':
        return set_expected("--nonce", value, &r->nonce, &policy->nonce, err) < 0 ? -1 : 1;
    case 'u':
        return set_expected("--user-data", value, &r->user_data, &policy->user_data, err) < 0 ? -1
                                                                                              : 1;
    case 'k':
        return set_expected("--public-key", value, &r->public_key, &policy->public_key, err) < 0
                   ? -1
                   : 1;
    default:
        return attest_expect_option(&r->expect, c, value, err);
    }
}

/* Returns the name of the file, or NULL with *err. */
static const char *parse(struct request *r, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        ATTEST_EXPECT_OPTIONS,
        ATTEST_AT_OPTION,
        {"nonce", required_argument, NULL, 'n'},
        {"user-data", required_argument, NULL, 'u'},
        {"public-key", required_argument, NULL, 'k'},
        {0},
    };
    int c, taken;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        taken = take_option(r, c, optarg, err);
        if (taken == 0)
            cli_option_error(&cmd_attest, c, argv, err);
        if (taken <= 0)
            return NULL;
    }
    if (argc - optind != 1) {
        cli_usage_error(&cmd_attest, argv, err, "verify wants one file, or - for standard input");
        return NULL;
    }
    return argv[optind];
}

/* What an accepted document does not prove, because nobody asked. */
static void warn_of_gaps(const struct attest_expect *expect)
{
    if (!attest_expect_names_image(expect))
        fprintf(stderr,
                "capsule-cli: warning: no image was expected (--eif, --pcr 0, --pcr 1 and 2, "
                "or --pcr 8): any enclave's document would pass\n");
    if (!expect->policy.nonce.present)
        fprintf(stderr, "capsule-cli: warning: no nonce was expected (--nonce): the document may "
                        "have been recorded earlier\n");
}

static int verify(const char *path, const struct attest_expect *expect, struct error *err)
{
    AUTO_BUF struct buf bytes = BUF(ATTEST_INPUT_MAX);
    struct attest_document doc;

    if (attest_load(path, &bytes, err) < 0)
        return -1;
    if (!attest_expect_verify(expect, buf_slice(&bytes), &doc))
        return 1;
    warn_of_gaps(expect);
    return 0;
}

int attest_verify_file(int argc, char **argv, struct error *err)
{
    struct request r = {.expect = attest_expect_init(&cmd_attest)};
    const char *path = parse(&r, argc, argv, err);
    int ret = path ? verify(path, &r.expect, err) : -1;

    attest_expect_free(&r.expect);
    buf_free(&r.nonce);
    buf_free(&r.user_data);
    buf_free(&r.public_key);
    return ret;
}
