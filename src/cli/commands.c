#include "cli/cli.h"

#include <stddef.h>

extern const struct subcommand cmd_attest;
extern const struct subcommand cmd_build;
extern const struct subcommand cmd_client;
extern const struct subcommand cmd_copy;
extern const struct subcommand cmd_doctor;
extern const struct subcommand cmd_eif;
extern const struct subcommand cmd_explain;
extern const struct subcommand cmd_logs;
extern const struct subcommand cmd_measure;
extern const struct subcommand cmd_mount;
extern const struct subcommand cmd_prune;
extern const struct subcommand cmd_ps;
extern const struct subcommand cmd_run;
extern const struct subcommand cmd_schema;
extern const struct subcommand cmd_stop;
extern const struct subcommand cmd_validate;
extern const struct subcommand cmd_verify;

/* One a line: branches add to it side by side. */
/* clang-format off */
const struct subcommand *const cli_subcommands[] = {
    &cmd_build,
    &cmd_run,
    &cmd_ps,
    &cmd_logs,
    &cmd_stop,
    &cmd_prune,
    &cmd_mount,
    &cmd_copy,
    &cmd_measure,
    &cmd_verify,
    &cmd_doctor,
    &cmd_attest,
    &cmd_client,
    &cmd_eif,
    &cmd_validate,
    &cmd_explain,
    &cmd_schema,
    NULL,
};
/* clang-format on */
