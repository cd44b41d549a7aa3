/* A kernel command line: every word of ours that is found stands there, and found again. */
#include "codec/cmdline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cmdline_words w = cmdline_parse(slice_of(data, size));

    if (w.verbosity < 0 || w.verbosity > 2)
        abort();
    if (w.soft_nsm && !memmem(data, size, CMDLINE_SOFT_NSM, sizeof(CMDLINE_SOFT_NSM) - 1))
        abort();
    if (w.log_json && !memmem(data, size, CMDLINE_LOG_JSON, sizeof(CMDLINE_LOG_JSON) - 1))
        abort();
    return 0;
}
