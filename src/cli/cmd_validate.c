/* capsule-cli validate: checks a manifest and prints its effective values. */
#include "cli/cli.h"
#include "cli/manifest_input.h"
#include "manifest/manifest_json.h"

#include <getopt.h>

extern const struct subcommand cmd_validate;

static int run(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"file", required_argument, NULL, 'f'},
        {"strict", no_argument, NULL, 's'},
        {0},
    };
    AUTO_MANIFEST struct manifest *m = NULL;
    const char *file = MANIFEST_DEFAULT_FILE;
    bool strict = false;
    json_t *json;
    int c;

    while ((c = getopt_long(argc, argv, ":f:", options, NULL)) != -1) {
        if (c == 'f')
            file = optarg;
        else if (c == 's')
            strict = true;
        else
            return cli_option_error(&cmd_validate, c, argv, err);
    }
    if (optind < argc)
        return cli_usage_error(&cmd_validate, argv, err, "%s: unexpected; name a file with -f",
                               argv[optind]);
    if (cli_load_manifest(file, strict, &m, err) < 0)
        return -1;
    json = manifest_effective_json(m);
    json_dumpf(json, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(json);
    return 0;
}

const struct subcommand cmd_validate = {
    .name = "validate",
    .synopsis = "[-f FILE|-] [--strict]",
    .summary = "Check a manifest and print its effective values as JSON",
    .help = "  -f, --file FILE  manifest to check (default capsule.yaml); - is standard input\n"
            "      --strict     warnings are errors\n"
            "\n"
            "Every problem is one line on standard error: file:line:column: key: what is wrong.\n"
            "The exit status is 0 for a valid manifest, else 1.\n",
    .run = run,
};
