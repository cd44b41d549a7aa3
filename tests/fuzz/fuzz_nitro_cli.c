/* What nitro-cli prints on both of its streams. */
#include "launch/nitro_cli_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = slice_of(data, size), rest = text, path;
    char fault[NITRO_CLI_FAULT_MAX];
    struct nitro_cli_enclave e;
    struct error err;
    bool found;
    int number = nitro_cli_parse_fault(text, fault);

    if (number < -1 || number > 99 || strlen(fault) >= sizeof(fault))
        abort();
    while (nitro_cli_next_log(&rest, &path))
        if (!path.len || path.ptr < data || path.ptr + path.len > data + size)
            abort();
    if (nitro_cli_parse_run(text, &e, &err) == 0 && (!e.id[0] || e.process < 0))
        abort();
    (void)nitro_cli_parse_terminate(text, &err);
    (void)nitro_cli_parse_has_cid(text, 16, &found, &err);
    return 0;
}
