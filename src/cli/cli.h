/*
 * capsule-cli: one table of subcommands, one file for each. A subcommand owns its options; main()
 * handles the global ones, `help`, and the mapping from errors to exit status (usage 2, else 1).
 */
#ifndef CAPSULE_CLI_CLI_H
#define CAPSULE_CLI_CLI_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stdio.h>

struct subcommand {
    const char *name;
    const char *synopsis; /* what follows the name: "[-f FILE|-]" */
    const char *summary;  /* one line for the list of commands */
    /*
     * Option by option, lines ending in '\n'; may be NULL. Its form is that of cli/help_text.h, for
     * man pages and completion are made from it.
     */
    const char *help;
    /*
     * Runs it with argv[0] = name. Returns the exit status; -1 means *err tells why, and main
     * prints it. Results go to standard output, everything else to standard error.
     */
    int (*run)(int argc, char **argv, struct error *err);
};

/* The list of commands, and the options before them (in the form of `help` above). */
void cli_print_usage(FILE *out);
extern const char cli_global_help[];
#define CLI_ABOUT    "Puts a container image into an AWS Nitro Enclave and runs it."
#define CLI_SYNOPSIS "[-v]... [--log-format text|json] COMMAND [ARGUMENT]..."

/* NULL when there is none of that name. */
const struct subcommand *cli_find(const char *name);
/* Says so, with the nearest name; returns the exit status. */
int cli_no_such_command(const char *name);

/* Prints synopsis and help of one subcommand to standard output. */
void cli_print_help(const struct subcommand *cmd);

/*
 * For getopt_long() loops: the error for its '?' and ':' results and for surplus operands. Names
 * the option at fault and points to `capsule-cli NAME --help`. Returns -1.
 */
int cli_usage_error(const struct subcommand *cmd, char **argv, struct error *err, const char *fmt,
                    ...) __attribute__((format(printf, 4, 5)));
int cli_option_error(const struct subcommand *cmd, int result, char **argv, struct error *err);

/* Number of -v flags before the subcommand. */
extern int cli_verbosity;
/* What --log-format said. */
extern enum log_format cli_log_format;

extern const struct subcommand *const cli_subcommands[]; /* NULL-terminated */

#endif
