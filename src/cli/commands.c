#include "cli/cli.h"

#include <stddef.h>

const struct subcommand *const cli_subcommands[] = {
    NULL,
};
