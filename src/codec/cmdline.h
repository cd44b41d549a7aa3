/*
 * The words that a launcher of development machines appends to the kernel command line, for the
 * runtime to read from /proc/cmdline (design.md section 2). On Nitro nobody can append one: the
 * command line is the measured one of the EIF.
 */
#ifndef CAPSULE_CODEC_CMDLINE_H
#define CAPSULE_CODEC_CMDLINE_H

#include "base/slice.h"

#define CMDLINE_SOFT_NSM    "capsule.soft_nsm=1"      /* there is a soft NSM on the host */
#define CMDLINE_VERBOSE     "capsule.verbose="        /* 1 or 2: as many -v */
#define CMDLINE_LOG_JSON    "capsule.log_format=json" /* instead of text */
#define CMDLINE_WHOLE_CLOSE "capsule.half_close=0"    /* vsock streams end both ways at once */
#define CMDLINE_MAX         4096                      /* more than any kernel takes */

struct cmdline_words {
    bool soft_nsm;
    bool log_json;
    bool no_half_close;
    int verbosity;
};

/*
 * Finds them in a command line, whose words are separated by white space outside double quotes, as
 * the kernel reads it. Anything else is somebody else's and no concern here.
 */
struct cmdline_words cmdline_parse(struct slice text);

#endif
