#include "cli/cli.h"

#include "base/mem.h"
#include "base/text.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define PROGRAM "capsule-cli"

int cli_verbosity;
enum log_format cli_log_format = LOG_TEXT;

const char cli_global_help[] =
    "  -v, --verbose          more log lines; twice for all of them\n"
    "      --log-format FMT   text (default) or json\n"
    "  -h, --help             this text; COMMAND --help for one command\n"
    "  -V, --version          version and revision\n";

void cli_print_usage(FILE *out)
{
    fprintf(out, "Usage: " PROGRAM " " CLI_SYNOPSIS "\n\n" CLI_ABOUT "\n\nCommands:\n");
    for (const struct subcommand *const *c = cli_subcommands; *c; c++)
        fprintf(out, "  %-10s %s\n", (*c)->name, (*c)->summary);
    fprintf(out, "\nOptions:\n%s", cli_global_help);
}

void cli_print_help(const struct subcommand *cmd)
{
    printf("Usage: " PROGRAM " %s %s\n\n%s.\n", cmd->name, cmd->synopsis, cmd->summary);
    if (cmd->help)
        printf("\n%s", cmd->help);
}

int cli_usage_error(const struct subcommand *cmd, char **argv, struct error *err, const char *fmt,
                    ...)
{
    char text[512];
    va_list ap;

    (void)argv;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    error_set(err, ERR_USAGE, "%s: %s", cmd->name, text);
    return error_hint(err, "see " PROGRAM " %s --help", cmd->name);
}

int cli_option_error(const struct subcommand *cmd, int result, char **argv, struct error *err)
{
    /* getopt leaves a short option in optopt, a long one in the argument it has just passed. */
    const char *arg = optind > 0 ? argv[optind - 1] : "";
    char name[3] = {'-', (char)optopt, '\0'};

    if (optopt == 0 || strncmp(arg, "--", 2) == 0)
        return cli_usage_error(cmd, argv, err, "%s: %s", arg,
                               result == ':' ? "needs a value" : "no such option");
    return cli_usage_error(cmd, argv, err, "%s: %s", name,
                           result == ':' ? "needs a value" : "no such option");
}

const struct subcommand *cli_find(const char *name)
{
    for (const struct subcommand *const *c = cli_subcommands; *c; c++)
        if (strcmp((*c)->name, name) == 0)
            return *c;
    return NULL;
}

int cli_no_such_command(const char *name)
{
    const char *known[32], *near;
    size_t count = 0;

    for (const struct subcommand *const *c = cli_subcommands; *c && count < ARRAY_LEN(known); c++)
        known[count++] = (*c)->name;
    near = text_nearest_word(name, known, count);
    fprintf(stderr, PROGRAM ": %s: no such command\n" PROGRAM ": hint: ", name);
    if (near)
        fprintf(stderr, "did you mean %s? See " PROGRAM " --help\n", near);
    else
        fprintf(stderr, "see " PROGRAM " --help\n");
    return 2;
}
