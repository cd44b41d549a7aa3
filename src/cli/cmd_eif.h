/* The subcommands below `capsule-cli eif`. */
#ifndef CAPSULE_CLI_CMD_EIF_H
#define CAPSULE_CLI_CMD_EIF_H

#include "cli/cli.h"

extern const struct subcommand cmd_eif_describe;
extern const struct subcommand cmd_eif_verify;
extern const struct subcommand cmd_eif_extract;
extern const struct subcommand cmd_eif_sign;

/* Opens an image for reading; the caller closes the descriptor. -1 with *err. */
int cmd_eif_open(const char *path, struct error *err);

#endif
