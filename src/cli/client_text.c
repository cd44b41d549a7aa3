#include "base/text.h"
#include "cli/client.h"

int client_hex(const char *what, struct slice text, struct buf *out, struct error *err)
{
    if (text.len >= 2 && text.ptr[0] == '0' && text.ptr[1] == 'x')
        text = slice_of(text.ptr + 2, text.len - 2);
    if (text.len / 2 > out->max - out->len)
        return error_set(err, ERR_LIMIT, "%s is longer than %zu bytes", what, out->max);
    if (hex_decode_buf(text, out) < 0)
        return error_set(err, ERR_INVALID, "%s is not an even number of hex digits", what);
    return 0;
}

int client_address(const char *what, struct slice text, uint8_t *address, struct error *err)
{
    if (text.len != ETH_ADDRESS_STRLEN - 1 || text.ptr[0] != '0' || text.ptr[1] != 'x' ||
        hex_decode(slice_of(text.ptr + 2, text.len - 2), address, ETH_ADDRESS_LEN) < 0)
        return error_set(err, ERR_INVALID, "%s is not an address: 0x and 40 hex digits", what);
    return 0;
}

int client_member(const json_t *object, const char *name, struct slice *out, struct error *err)
{
    const json_t *value = json_object_get(object, name);

    if (!json_is_string(value))
        return error_set(err, ERR_INVALID, "there is no text member \"%s\"", name);
    *out = slice_of(json_string_value(value), json_string_length(value));
    return 0;
}
