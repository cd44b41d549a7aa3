/* Both directions of the status stream and the log requests: bytes of a hostile peer. */
#include "base/text.h"
#include "vsock/log2.h"
#include "vsock/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice line = slice_of(data, size);
    AUTO_BUF struct buf out = BUF(STATUS_LINE_MAX + 1);
    struct status s, back;
    struct host_command cmd;
    uint64_t offset, dropped;
    struct error err;

    if (status_parse(line, &s, &err) == 0) {
        /* What was understood can be said again, and means the same. */
        status_format(&s, &out);
        if (out.len > STATUS_LINE_SENT || out.ptr[out.len - 1] != '\n' ||
            status_parse(slice_of(out.ptr, out.len - 1), &back, &err) < 0 || back.kind != s.kind ||
            back.code != s.code || back.signal != s.signal)
            abort();
    }
    if (host_command_parse(line, &cmd, &err) == 0 && cmd.has_grace && cmd.grace_ms > STOP_GRACE_MAX)
        abort();
    (void)log2_parse_request(line, &offset, &err);
    if (log2_parse_reply(line, 7, &offset, &dropped, &err) == 0 && offset - dropped != 7)
        abort();
    /* Any bytes as a fatal text must make one readable line. */
    s = (struct status){.kind = STATUS_FATAL};
    memcpy(s.error, data, size < sizeof(s.error) - 1 ? size : sizeof(s.error) - 1);
    buf_clear(&out);
    status_format(&s, &out);
    if (status_parse(slice_of(out.ptr, out.len - 1), &back, &err) < 0 ||
        !utf8_valid(slice_str(back.error)))
        abort();
    return 0;
}
