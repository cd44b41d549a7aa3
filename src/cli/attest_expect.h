/* What a relying party expects of a document: options, verification, and the lines it prints. */
#ifndef CAPSULE_CLI_ATTEST_EXPECT_H
#define CAPSULE_CLI_ATTEST_EXPECT_H

#include "attest/verify.h"
#include "cli/cli.h"

#include <stdio.h>

/* The options, and the bytes that policy and anchor point into. */
struct attest_expect {
    const struct subcommand *cmd; /* named in messages */
    struct attest_policy policy;
    struct attest_anchor anchor;
    struct buf root_der;
    FILE *lines; /* where the lines about passed checks go */
};

/* AWS's root, the present time, no expectation, and standard output. */
struct attest_expect attest_expect_init(const struct subcommand *cmd);
void attest_expect_free(struct attest_expect *expect);

/* Their --help lines and their rows for getopt_long(), which attest_expect_option() understands. */
#define ATTEST_EXPECT_HELP                                                                         \
    "      --root PEM         trust the root certificate in this file instead of AWS's; the\n"     \
    "                         only way to accept documents of a development (soft) NSM\n"          \
    "      --max-age SECONDS  refuse documents that are older than this, or from the future\n"     \
    "      --pcr N=HEX        expect PCR N to have this value; may be given several times\n"       \
    "      --eif FILE         expect PCR0, 1 and 2 of this image, and PCR8 when it is signed\n"    \
    "      --allow-debug      accept enclaves in debug mode, which protect nothing\n"
/* The same of --at, for actions that also take stored documents. */
#define ATTEST_AT_HELP                                                                             \
    "      --at SECONDS       verify as of this time since 1970 (default: now). Certificates\n"    \
    "                         live for three hours: for a stored document give its own time\n"
#define ATTEST_AT_OPTION                                                                           \
    {                                                                                              \
        "at", required_argument, NULL, ATTEST_OPTION_AT                                            \
    }
enum {
    ATTEST_OPTION_ROOT = 0x200,
    ATTEST_OPTION_AT,
    ATTEST_OPTION_MAX_AGE,
    ATTEST_OPTION_PCR,
    ATTEST_OPTION_EIF,
    ATTEST_OPTION_DEBUG,
};
/* clang-format off */
#define ATTEST_EXPECT_OPTIONS                                                                      \
    {"root", required_argument, NULL, ATTEST_OPTION_ROOT},                                         \
    {"max-age", required_argument, NULL, ATTEST_OPTION_MAX_AGE},                                   \
    {"pcr", required_argument, NULL, ATTEST_OPTION_PCR},                                           \
    {"eif", required_argument, NULL, ATTEST_OPTION_EIF},                                           \
    {"allow-debug", no_argument, NULL, ATTEST_OPTION_DEBUG}
/* clang-format on */
/* Returns 1 when it was one of these, 0 when it was not, or -1. */
int attest_expect_option(struct attest_expect *expect, int option, const char *value,
                         struct error *err);

/* True when the expected PCRs name an image or its signer: PCR0, PCR1 with 2, or a PCR8. */
bool attest_expect_names_image(const struct attest_expect *expect);

/*
 * Verifies the document, prints "ok: CHECK" a passed check to `lines`, and, when one fails,
 * "rejected: CLASS: reason" with a hint to standard error. Returns true when it was accepted; *doc
 * then points into `document`.
 */
bool attest_expect_verify(const struct attest_expect *expect, struct slice document,
                          struct attest_document *doc);

#endif
