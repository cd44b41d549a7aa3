/* The command line of capsule-runtime (spec/runtime.md section 4.1). */
#ifndef CAPSULE_RUNTIME_OPTIONS_H
#define CAPSULE_RUNTIME_OPTIONS_H

#include "base/error.h"
#include "base/log.h"
#include "enclave/mounts.h"
#include "vsock/carrier.h"

#include <stdbool.h>

struct options {
    const char *config_dir;
    const char *work_dir; /* NULL: the launch description's, or "/" */
    const char *launch;   /* path of launch.json; NULL when argv is given */
    char **argv;          /* behind "--"; NULL when launch is given */
    bool no_bootstrap;
    bool no_console;
    bool soft_nsm;
    bool clock_measure;
    struct carrier_config carrier;
    struct mount_fds mount_fds[VSOCK_MOUNTS_MAX];
    size_t mount_fds_count;
    int verbosity;
    enum log_format log_format;
    bool help;
    bool version;
};

/*
 * Reads everything it can: after an error (ERR_USAGE) the carrier's fields are still what the
 * command line says about them, so that the error can be reported to the host.
 */
int options_parse(int argc, char **argv, struct options *out, struct error *err);
extern const char options_help[];

/*
 * Adds what the launcher of a development machine wrote on the kernel command line (cmdline.h).
 * For PID 1 of a machine only: elsewhere the command line belongs to somebody else.
 */
void options_take_cmdline(const char *path, struct options *o);

#endif
