#include "cli/cli.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "config.h"
#include "version.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define PROGRAM "capsule-cli"

int cli_verbosity;
enum log_format cli_log_format = LOG_TEXT;

static void print_usage(FILE *out)
{
    fprintf(out, "Usage: " PROGRAM " [-v]... [--log-format text|json] COMMAND [ARGUMENT]...\n\n"
                 "Puts a container image into an AWS Nitro Enclave and runs it.\n\nCommands:\n");
    for (const struct subcommand *const *c = cli_subcommands; *c; c++)
        fprintf(out, "  %-10s %s\n", (*c)->name, (*c)->summary);
    fprintf(out, "\nOptions:\n"
                 "  -v, --verbose          more log lines; twice for all of them\n"
                 "      --log-format FMT   text (default) or json\n"
                 "  -h, --help             this text; COMMAND --help for one command\n"
                 "  -V, --version          version and revision\n");
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

static const struct subcommand *find(const char *name)
{
    for (const struct subcommand *const *c = cli_subcommands; *c; c++)
        if (strcmp((*c)->name, name) == 0)
            return *c;
    return NULL;
}

static int no_such_command(const char *name)
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

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

static int run_subcommand(int argc, char **argv)
{
    const struct subcommand *cmd;
    struct error err = {0};
    int status;

    if (argc > 1 && strcmp(argv[0], "help") == 0) {
        cmd = find(argv[1]);
        if (cmd) {
            cli_print_help(cmd);
            return 0;
        }
        argv++;
    } else if (strcmp(argv[0], "help") == 0) {
        print_usage(stdout);
        return 0;
    }
    cmd = find(argv[0]);
    if (!cmd)
        return no_such_command(argv[0]);
    if (wants_help(argc, argv)) {
        cli_print_help(cmd);
        return 0;
    }
    optind = 0; /* getopt starts over on the subcommand's own arguments */
    opterr = 0;
    status = cmd->run(argc, argv, &err);
    if (status < 0) {
        error_print(PROGRAM, &err);
        status = err.kind == ERR_USAGE ? 2 : 1;
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, PROGRAM ": writing standard output failed\n");
        return status ? status : 1;
    }
    return status;
}

static int wrong_option(int result, char **argv)
{
    const char *arg = argv[optind - 1];
    char name[3] = {'-', (char)optopt, '\0'};

    if (optopt == 0 || strncmp(arg, "--", 2) == 0)
        fprintf(stderr, PROGRAM ": %s: ", arg);
    else
        fprintf(stderr, PROGRAM ": %s: ", name);
    fprintf(stderr,
            "%s\n" PROGRAM ": hint: see " PROGRAM " --help; a command's own options follow "
            "the command\n",
            result == ':' ? "needs a value" : "no such option");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"verbose", no_argument, NULL, 'v'},
        {"log-format", required_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {0},
    };
    struct error err = {0};
    int c;

    /* "+": stop at the command; what follows is its own. ":": we say ourselves what is wrong. */
    while ((c = getopt_long(argc, argv, "+:vhV", options, NULL)) != -1) {
        switch (c) {
        case 'v':
            cli_verbosity++;
            break;
        case 'l':
            if (log_format_parse(optarg, &cli_log_format, &err) < 0) {
                error_print(PROGRAM, &err);
                return 2;
            }
            break;
        case 'h':
            print_usage(stdout);
            return 0;
        case 'V':
            printf(PROGRAM " %s (git %s)\n", CAPSULE_VERSION, CAPSULE_GIT_REV);
            return 0;
        default:
            return wrong_option(c, argv);
        }
    }
    if (optind == argc) {
        print_usage(stderr);
        return 2;
    }
    log_setup(log_level_of_verbosity(cli_verbosity), cli_log_format);
    return run_subcommand(argc - optind, argv + optind);
}
