#include "api/encoding.h"

#include "base/text.h"

static struct slice without_prefix(struct slice text)
{
    if (text.len >= 2 && text.ptr[0] == '0' && text.ptr[1] == 'x')
        return slice_of(text.ptr + 2, text.len - 2);
    return text;
}

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct slice trimmed(struct slice text)
{
    while (text.len && is_space(text.ptr[0]))
        text = slice_of(text.ptr + 1, text.len - 1);
    while (text.len && is_space(text.ptr[text.len - 1]))
        text.len--;
    return text;
}

static const char *digits(struct slice text, struct buf *out)
{
    if (text.len % 2)
        return "odd number of hex digits";
    if (text.len / 2 > out->max - out->len)
        return "too long";
    return hex_decode_buf(text, out) < 0 ? "not hex digits" : NULL;
}

const char *hex_strict_decode(struct slice text, struct buf *out)
{
    return digits(without_prefix(text), out);
}

const char *hex_data_decode(struct slice text, struct buf *out)
{
    return digits(without_prefix(trimmed(text)), out);
}

const char *hex_scalar_decode(struct slice text, struct buf *out)
{
    struct slice rest = without_prefix(trimmed(text));
    size_t before = out->len;
    const char *problem;

    while (rest.len && rest.ptr[0] == '0')
        rest = slice_of(rest.ptr + 1, rest.len - 1);
    if (rest.len % 2) {
        int first = hex_digit_value(rest.ptr[0]);

        if (first < 0)
            return "not hex digits";
        if (buf_append_byte(out, (uint8_t)first) < 0)
            return "too long";
        rest = slice_of(rest.ptr + 1, rest.len - 1);
    }
    problem = digits(rest, out);
    if (problem)
        out->len = before;
    return problem;
}
