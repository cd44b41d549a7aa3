/* The command line of capsule-shell (spec/runtime.md section 2.1). */
#ifndef CAPSULE_SHELL_OPTIONS_H
#define CAPSULE_SHELL_OPTIONS_H

#include "base/error.h"
#include "base/log.h"
#include "host/mounts.h"
#include "host/publish.h"

#include <stdbool.h>

struct shell_options {
    const char *eif_file;
    const char *manifest_file;
    unsigned cpu_count; /* 0: the manifest's, then 2 */
    unsigned memory_mb; /* 0: the manifest's, then 4096 */
    bool debug;
    const char *launcher; /* "auto" or a name */
    /* Carrier directory of an enclave that somebody else starts; NULL: use the launcher. */
    const char *attach;
    struct publish publish[PUBLISH_MAX];
    size_t publish_count;
    bool publish_all;
    struct mount_options mounts;
    bool signal_status; /* 128 + signal instead of 109 (cli-and-build section 5.3) */
    unsigned report_fd; /* 0: nobody wants to know */
    int verbosity;
    enum log_format log_format;
    bool help;
    bool version;
    const char *command; /* "print-manifest", "describe-eif", or NULL to run */
};

int shell_options_parse(int argc, char **argv, struct shell_options *out, struct error *err);
extern const char shell_help[];

#endif
