#include "cli/attest.h"
#include "cli/cli.h"

#include <stddef.h>

const struct subcommand *const cli_subcommands[] = {
    &cmd_attest,
    NULL,
};
