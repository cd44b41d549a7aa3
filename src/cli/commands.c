#include "cli/cli.h"

#include <stddef.h>

extern const struct subcommand cmd_eif;

const struct subcommand *const cli_subcommands[] = {
    &cmd_eif,
    NULL,
};
