#include "cli/cli.h"

#include "base/log.h"
#include "cli/complete.h"
#include "config.h"
#include "version.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define PROGRAM "capsule-cli"

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
        cmd = cli_find(argv[1]);
        if (cmd) {
            cli_print_help(cmd);
            return 0;
        }
        argv++;
    } else if (strcmp(argv[0], "help") == 0) {
        cli_print_usage(stdout);
        return 0;
    }
    cmd = cli_find(argv[0]);
    if (!cmd)
        return cli_no_such_command(argv[0]);
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
        {"complete", no_argument, NULL, 'C'}, /* for the shells' completion; not for people */
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
            cli_print_usage(stdout);
            return 0;
        case 'V':
            printf(PROGRAM " %s (git %s)\n", CAPSULE_VERSION, CAPSULE_GIT_REV);
            return 0;
        case 'C':
            return complete_print(argc - optind, argv + optind);
        default:
            return wrong_option(c, argv);
        }
    }
    if (optind == argc) {
        cli_print_usage(stderr);
        return 2;
    }
    log_setup(log_level_of_verbosity(cli_verbosity), cli_log_format);
    return run_subcommand(argc - optind, argv + optind);
}
