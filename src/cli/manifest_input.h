/* How subcommands read a manifest: one way, so that all of them speak of problems alike. */
#ifndef CAPSULE_CLI_MANIFEST_INPUT_H
#define CAPSULE_CLI_MANIFEST_INPUT_H

#include "manifest/manifest.h"

/*
 * Loads a manifest ("-" is standard input) and prints its problems to standard error, one line
 * each; warnings also when it loads. On failure err only sums up: "invalid configuration in
 * capsule.yaml: 3 errors, 1 warning". The caller frees *out.
 */
int cli_load_manifest(const char *path, bool strict, struct manifest **out, struct error *err);

#endif
