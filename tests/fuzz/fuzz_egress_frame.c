/* First byte: 0 request, 1 reply; then a frame with its length. */
#include "codec/egress_frame.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_reply(struct slice json)
{
    AUTO_BUF struct buf out = BUF(EGRESS_FRAME_MAX + 4);
    struct egress_reply a, b;
    struct error err;

    if (egress_reply_parse(json, &a, &err) < 0)
        return;
    for (const char *p = a.message; *p; p++)
        if (*p < 0x20 || *p > 0x7e)
            abort();
    if (egress_reply_write(&a, &out) < 0 ||
        egress_reply_parse(slice_of(out.ptr + 4, out.len - 4), &b, &err) < 0 || a.ok != b.ok ||
        a.kind != b.kind || a.os_code != b.os_code || strcmp(a.message, b.message) != 0)
        abort();
}

static void check_request(struct slice json)
{
    AUTO_BUF struct buf out = BUF(EGRESS_FRAME_MAX + 4);
    struct egress_request a, b;
    struct error err;

    if (egress_request_parse(json, &a, &err) < 0)
        return;
    /* A name of control bytes may not fit once escaped. */
    if (egress_request_write(a.host, a.port, &out) < 0)
        return;
    if (egress_request_parse(slice_of(out.ptr + 4, out.len - 4), &b, &err) < 0 ||
        a.port != b.port || strcmp(a.host, b.host) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of(data + 1, size ? size - 1 : 0);
    struct error err;
    size_t len;

    if (size == 0 || egress_frame_length(in, &len, &err) <= 0)
        return 0;
    if (len > EGRESS_FRAME_MAX)
        abort();
    if (len > in.len - 4)
        return 0;
    in = slice_of(in.ptr + 4, len);
    if (data[0] & 1)
        check_reply(in);
    else
        check_request(in);
    return 0;
}
