/* capsule-cli schema: the manifest's JSON Schema, for editors. */
#include "cli/cli.h"
#include "manifest/manifest_json.h"

#include <getopt.h>

extern const struct subcommand cmd_schema;

static int run(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {{0}};
    json_t *json;
    int c = getopt_long(argc, argv, ":", options, NULL);

    if (c != -1)
        return cli_option_error(&cmd_schema, c, argv, err);
    if (optind < argc)
        return cli_usage_error(&cmd_schema, argv, err, "%s: unexpected", argv[optind]);
    json = manifest_schema_json();
    json_dumpf(json, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(json);
    return 0;
}

const struct subcommand cmd_schema = {
    .name = "schema",
    .synopsis = "",
    .summary = "Print the JSON Schema of the manifest",
    .help = "Save it and name it in the first line of capsule.yaml, and an editor with a YAML\n"
            "language server completes and checks keys as you type:\n"
            "\n"
            "  # yaml-language-server: $schema=capsule-schema.json\n",
    .run = run,
};
