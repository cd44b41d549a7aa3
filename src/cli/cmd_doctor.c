/* capsule-cli doctor: what this machine can launch, and what mends the rest. */
#include "cli/cli.h"
#include "launch/launcher.h"

#include <getopt.h>
#include <stdio.h>

extern const struct subcommand cmd_doctor;

/* ---- one line a check ---- */

static void print_check(void *arg, const char *what, const char *found, const struct error *fault)
{
    const char *launcher = arg;

    if (fault)
        printf("%s: %s: MISSING: %s%s%s\n", launcher, what, fault->msg, found[0] ? "; " : "",
               found);
    else
        printf("%s: %s: ok%s%s\n", launcher, what, found[0] ? ": " : "", found);
    if (fault && fault->hint[0])
        printf("    to mend it: %s\n", fault->hint);
}

/* Whether it can be used here. */
static bool examine(const struct launcher_ops *l)
{
    struct error why = {0};
    bool usable = l->probe(&why) == 0;
    char name[32];

    snprintf(name, sizeof(name), "%s", l->name);
    if (l->examine)
        l->examine(print_check, name);
    else if (!usable)
        print_check(name, "needs", "", &why);
    if (!usable)
        printf("%s: cannot be used\n", l->name);
    else if (l->recommend && l->recommend(&why) < 0)
        printf("%s: can be used, but %s\n", l->name, why.msg);
    else
        printf("%s: can be used\n", l->name);
    return usable;
}

static int run(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {{0}};
    bool usable = false;
    int c = getopt_long(argc, argv, ":", options, NULL);

    if (c != -1)
        return cli_option_error(&cmd_doctor, c, argv, err);
    if (optind < argc)
        return cli_usage_error(&cmd_doctor, argv, err, "%s: unexpected", argv[optind]);
    for (const struct launcher_ops *const *l = launchers_all; *l; l++)
        usable = examine(*l) || usable;
    if (usable)
        return 0;
    return error_set(err, ERR_UNSUPPORTED, "no launcher works on this machine");
}

const struct subcommand cmd_doctor = {
    .name = "doctor",
    .synopsis = "",
    .summary = "Say what this machine can launch, and what mends the rest",
    .help = "Goes through every launcher, in the order in which `run --launcher auto` tries\n"
            "them, and prints one line a check. Changes nothing. Exit status 0 when at least\n"
            "one launcher can be used, else 1.\n",
    .run = run,
};
