/* What nitro-cli prints: parsers of text that another program wrote. */
#ifndef CAPSULE_LAUNCH_NITRO_CLI_REPLY_H
#define CAPSULE_LAUNCH_NITRO_CLI_REPLY_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NITRO_CLI_ID_MAX    128
#define NITRO_CLI_FAULT_MAX 256

struct nitro_cli_enclave {
    char id[NITRO_CLI_ID_MAX];
    uint32_t cid;
    pid_t process; /* that owns the enclave, or 0 where the reply does not say */
};

/* The object of run-enclave; unknown members are ignored. ERR_INVALID otherwise. */
int nitro_cli_parse_run(struct slice text, struct nitro_cli_enclave *out, struct error *err);
/* The object of terminate-enclave: ERR_INVALID unless it says that the enclave was terminated. */
int nitro_cli_parse_terminate(struct slice text, struct error *err);
/* Whether the array of describe-enclaves has an enclave with this CID. */
int nitro_cli_parse_has_cid(struct slice text, uint32_t cid, bool *found, struct error *err);

/*
 * The first line "[ Enn ] description" of standard error, without control characters. Returns nn,
 * or -1 with the last line that is not empty, or "", in `out`.
 */
int nitro_cli_parse_fault(struct slice text, char out[NITRO_CLI_FAULT_MAX]);
/* The next path of an error log in *text, which is moved on; false when there is none. */
bool nitro_cli_next_log(struct slice *text, struct slice *path);

#endif
