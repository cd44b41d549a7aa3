/* Running nitro-cli (spec/cli-and-build.md section 4, nitro-host.md section 7). */
#ifndef CAPSULE_LAUNCH_NITRO_CLI_CALL_H
#define CAPSULE_LAUNCH_NITRO_CLI_CALL_H

#include "base/slice.h"
#include "launch/launcher.h"

#define NITRO_CLI         "nitro-cli"
#define NITRO_CLI_OUT_MAX (1u << 20)
#define NITRO_CLI_ERR_MAX (64u << 10) /* of standard error is kept, from its end */
#define NITRO_CLI_UNKNOWN 11          /* E11: an enclave that has ended already */

/*
 * Runs nitro-cli with these arguments (NULL-terminated, without its own name) to its end and
 * appends what it printed to `out`. On failure the message is the first fault that it names, the
 * error logs that it points to are logged (but of NITRO_CLI_UNKNOWN), and err->sys is the number
 * behind "E", if any. More than timeout_ms is ERR_TIMEOUT. `req` (may be NULL) is asked whether to
 * keep going.
 */
int nitro_cli_call(const char *const *args, int timeout_ms, const struct launch_request *req,
                   struct buf *out, struct error *err);

#endif
