/* First byte: 0 request, 1 response, 2 chunked body; then the message. */
#include "codec/http_head.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void fuzz_head(struct slice in, bool response)
{
    static struct http_head head;
    struct http_scan whole = {0}, pieces = {0};
    enum http_scan_result r = http_scan(&whole, in), p = HTTP_SCAN_MORE;
    struct http_target target;
    struct http_body body;
    struct error err;
    int status;

    for (size_t n = 0; n <= in.len && p == HTTP_SCAN_MORE; n += n < 256 ? 1 : 997)
        p = http_scan(&pieces, slice_of(in.ptr, n));
    if (p == HTTP_SCAN_MORE)
        p = http_scan(&pieces, in);
    check(p == r && (r != HTTP_SCAN_DONE || pieces.pos == whole.pos));
    if (r != HTTP_SCAN_DONE)
        return;
    in.len = whole.pos;
    if (response) {
        if (http_response_parse(in, &head, &err) == 0) {
            check(head.status >= 100 && head.status <= 999);
            (void)http_response_body(&head, slice_str("GET"), &body, &err);
        }
        return;
    }
    if (http_request_parse(in, &head, &status, &err) < 0) {
        check(status == 400 || status == 431 || status == 505);
        return;
    }
    check(head.header_count <= HTTP_HEADERS_MAX && head.method.len && head.target.len);
    for (size_t i = 0; i < head.header_count; i++)
        (void)http_is_hop_by_hop(&head, head.headers[i].name);
    (void)http_keep_alive(&head);
    (void)http_check_host(&head, &err);
    (void)http_request_body(&head, &body, &err);
    if (http_target_parse(&head, &target, &err) == 0)
        check(target.port <= 65535 && (target.form != HTTP_ABSOLUTE || target.host.len));
}

/* Decoding byte by byte must give what decoding at once gives. */
static size_t dechunk(struct slice in, size_t step, enum http_chunk_result *last)
{
    struct http_chunked c = {0};
    size_t limit = step < in.len ? step : in.len, pos = 0, data = 0;

    for (;;) {
        struct slice piece = slice_of(in.ptr + pos, limit - pos);
        size_t n;

        *last = http_chunked_next(&c, &piece);
        pos = limit - piece.len;
        if (*last == HTTP_CHUNK_MORE) {
            if (limit == in.len)
                return data;
            limit = limit + step < in.len ? limit + step : in.len;
            continue;
        }
        if (*last != HTTP_CHUNK_DATA)
            return data;
        n = piece.len < c.left ? piece.len : (size_t)c.left;
        http_chunked_take(&c, n);
        pos += n;
        data += n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum http_chunk_result a, b;
    struct slice in;

    if (size == 0)
        return 0;
    in = slice_of(data + 1, size - 1);
    if (data[0] % 3 == 2) {
        size_t x = dechunk(in, in.len + 1, &a), y = dechunk(in, 1, &b);

        check(x == y && a == b);
    } else {
        fuzz_head(in, data[0] % 3 == 1);
    }
    return 0;
}
