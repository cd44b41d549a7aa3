#include "cli/attest.h"

#include "base/file.h"
#include "base/text.h"
#include "cli/attest_expect.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct action {
    const char *name;
    int (*run)(int argc, char **argv, struct error *err);
} actions[] = {
    {"fetch", attest_fetch},
    {"show", attest_show},
    {"verify", attest_verify_file},
};

static int run(int argc, char **argv, struct error *err)
{
    if (argc < 2)
        return cli_usage_error(&cmd_attest, argv, err, "say what to do: fetch, show or verify");
    for (size_t i = 0; i < ARRAY_LEN(actions); i++)
        if (strcmp(argv[1], actions[i].name) == 0)
            return actions[i].run(argc - 1, argv + 1, err);
    return cli_usage_error(&cmd_attest, argv, err, "%s: no such action", argv[1]);
}

/* clang-format off */
const struct subcommand cmd_attest = {
    .name = "attest",
    .synopsis = "fetch URL | show FILE|- | verify FILE|-",
    .summary = "Fetch, show and verify attestation documents",
    .help =
        "attest fetch URL [-o FILE] [--nonce HEX] [--unix-socket PATH] [--cacert FILE]...\n"
        "  Asks the Capsule API or Aux API at URL for a document (POST /v1/attestation when URL\n"
        "  has no path). With -o FILE the document goes there and the nonce, in hex, to standard\n"
        "  output; without, the document goes to standard output and the nonce to standard error.\n"
        "  -o, --output FILE      write the document to FILE\n"
        "      --nonce HEX        the nonce to ask for (default: 32 random bytes)\n"
        HTTP_TARGET_HELP
        "\n"
        "attest show FILE|-\n"
        "  Prints what a document says, as JSON. It is NOT verified.\n"
        "\n"
        "attest verify FILE|- [OPTION]...\n"
        "  Checks a document, one line a check. The first that fails is named on standard error\n"
        "  as \"rejected: CLASS: reason\". Exit status: 0 accepted, 1 rejected, 2 wrong usage.\n"
        ATTEST_EXPECT_HELP
        ATTEST_AT_HELP
        "      --nonce HEX        expect this nonce\n"
        "      --user-data HEX    expect this user data\n"
        "      --public-key HEX   expect this public key\n",
    .run = run,
};
/* clang-format on */

int attest_load(const char *path, struct buf *out, struct error *err)
{
    int ret = strcmp(path, "-") == 0 ? fd_read_all(STDIN_FILENO, out, "standard input", err)
                                     : file_read(path, out, err);

    if (ret < 0)
        return error_wrap(err, "reading the attestation document");
    return 0;
}

int attest_hex_option(const char *option, const char *value, size_t max, struct buf *out,
                      bool *present, struct error *err)
{
    const char *digits = strncmp(value, "0x", 2) == 0 ? value + 2 : value;

    if (*present)
        return error_set(err, ERR_USAGE, "attest: %s is given twice", option);
    *out = BUF(max);
    if (strlen(digits) > 2 * max)
        return error_set(err, ERR_USAGE, "attest: %s has more than %zu bytes", option, max);
    if (hex_decode_buf(slice_str(digits), out) < 0)
        return error_set(err, ERR_USAGE, "attest: %s wants an even number of hex digits", option);
    *present = true;
    return 0;
}

void attest_format_time(int64_t seconds, int ms, char out[40])
{
    time_t t = (time_t)seconds;
    char date[24] = "";
    struct tm tm;

    if (seconds < 0 || seconds > INT64_C(253402300799) || !gmtime_r(&t, &tm)) {
        snprintf(out, 40, "out of range");
        return;
    }
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    if (ms < 0)
        snprintf(out, 40, "%sZ", date);
    else
        snprintf(out, 40, "%s.%03dZ", date, ms % 1000);
}
