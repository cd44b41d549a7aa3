#include "codec/rlp.h"

#define STRING_BASE 0x80
#define LIST_BASE   0xc0
#define SHORT_MAX   55 /* longest content whose length stands in the first byte */
#define HEAD_MAX    9

/* ---- reading ---- */

/* The `count` bytes of a long form's length, which must need them all. */
static bool read_long_length(struct reader *r, size_t count, uint64_t *out)
{
    struct slice bytes;
    uint64_t len = 0;

    if (!reader_take(r, count, &bytes) || bytes.ptr[0] == 0)
        return false;
    for (size_t i = 0; i < count; i++)
        len = len << 8 | bytes.ptr[i];
    *out = len;
    return len > SHORT_MAX;
}

static bool read_item(struct reader *r, bool list, struct slice *out)
{
    struct reader at = *r;
    struct slice content;
    uint64_t len;
    uint8_t first;

    if (!reader_u8(&at, &first) || (first >= LIST_BASE) != list)
        return false;
    if (first < STRING_BASE) {
        *out = slice_of(r->pos, 1);
        *r = at;
        return true;
    }
    len = first - (list ? LIST_BASE : STRING_BASE);
    if (len > SHORT_MAX && !read_long_length(&at, (size_t)len - SHORT_MAX, &len))
        return false;
    if (len > reader_left(&at) || !reader_take(&at, (size_t)len, &content))
        return false;
    if (!list && len == 1 && content.ptr[0] < STRING_BASE)
        return false;
    *out = content;
    *r = at;
    return true;
}

bool rlp_read_string(struct reader *r, struct slice *out)
{
    return read_item(r, false, out);
}

bool rlp_read_list(struct reader *r, struct slice *payload)
{
    return read_item(r, true, payload);
}

bool rlp_read_integer(struct reader *r, size_t max_len, struct slice *out)
{
    struct reader at = *r;
    struct slice bytes;

    if (!read_item(&at, false, &bytes) || bytes.len > max_len || (bytes.len && bytes.ptr[0] == 0))
        return false;
    *out = bytes;
    *r = at;
    return true;
}

bool rlp_at_list(const struct reader *r)
{
    return reader_left(r) > 0 && *r->pos >= LIST_BASE;
}

/* ---- writing ---- */

/* Writes the head of content of `len` bytes; returns its length, at most HEAD_MAX. */
static size_t head_of(uint8_t base, size_t len, uint8_t *out)
{
    uint8_t be[8];
    size_t skip = 0;

    if (len <= SHORT_MAX) {
        out[0] = (uint8_t)(base + len);
        return 1;
    }
    put_be64(be, len);
    while (be[skip] == 0)
        skip++;
    out[0] = (uint8_t)(base + SHORT_MAX + sizeof(be) - skip);
    memcpy(out + 1, be + skip, sizeof(be) - skip);
    return 1 + sizeof(be) - skip;
}

struct slice rlp_integer(struct slice big_endian)
{
    while (big_endian.len && big_endian.ptr[0] == 0)
        big_endian = slice_of(big_endian.ptr + 1, big_endian.len - 1);
    return big_endian;
}

/* One byte that needs no head. */
static bool is_own_encoding(struct slice bytes)
{
    return bytes.len == 1 && bytes.ptr[0] < STRING_BASE;
}

size_t rlp_list_size(size_t payload_len)
{
    uint8_t head[HEAD_MAX];

    return head_of(LIST_BASE, payload_len, head) + payload_len;
}

size_t rlp_string_size(struct slice bytes)
{
    return is_own_encoding(bytes) ? 1 : rlp_list_size(bytes.len);
}

int rlp_put_string(struct buf *out, struct slice bytes)
{
    uint8_t head[HEAD_MAX];
    size_t head_len;

    if (is_own_encoding(bytes))
        return buf_append_byte(out, bytes.ptr[0]);
    head_len = head_of(STRING_BASE, bytes.len, head);
    if (!buf_reserve(out, head_len + bytes.len) || buf_append(out, head, head_len) < 0)
        return -1;
    return buf_append(out, bytes.ptr, bytes.len);
}

int rlp_put_list_head(struct buf *out, size_t payload_len)
{
    uint8_t head[HEAD_MAX];

    return buf_append(out, head, head_of(LIST_BASE, payload_len, head));
}
