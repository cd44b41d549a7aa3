#include "codec/rlp.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEPTH_MAX 256

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* An integer is a string without a leading zero, and nothing else is. */
static void check_integer(struct reader r, bool is_string, struct slice string)
{
    const uint8_t *at = r.pos;
    struct slice value;
    bool want = is_string && string.len <= 32 && rlp_integer(string).len == string.len;

    must(rlp_read_integer(&r, 32, &value) == want);
    must(want ? slice_equal(value, string) : r.pos == at);
}

/* Reads items to the end and writes them again; false when one of them is not canonical. */
static bool copy_items(struct reader r, struct buf *out, int depth)
{
    while (reader_left(&r) > 0) {
        struct slice content = {0};
        const uint8_t *at = r.pos;
        bool list = rlp_at_list(&r),
             other = list ? rlp_read_string(&r, &content) : rlp_read_list(&r, &content);
        struct reader integer = r;
        bool ok = list ? rlp_read_list(&r, &content) : rlp_read_string(&r, &content);

        must(!other);
        check_integer(integer, ok && !list, content);
        if (!ok) {
            must(r.pos == at);
            return false;
        }
        must(r.pos > at && r.pos == content.ptr + content.len);
        must((size_t)(r.pos - at) ==
             (list ? rlp_list_size(content.len) : rlp_string_size(content)));
        if (!list) {
            must(rlp_put_string(out, content) == 0);
            continue;
        }
        must(rlp_put_list_head(out, content.len) == 0);
        if (depth == DEPTH_MAX || !copy_items(reader_of(content), out, depth + 1))
            return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of(data, size);
    AUTO_BUF struct buf out = BUF(size);

    if (copy_items(reader_of(in), &out, 0))
        must(slice_equal(buf_slice(&out), in));
    else
        must(out.len <= size && slice_equal(buf_slice(&out), slice_of(data, out.len)));
    return 0;
}
