#include "crypto/pem.h"

#include "base/text.h"

#define LINE_BYTES 48 /* 64 characters of base64 */

int pem_encode(const char *label, struct slice der, struct buf *out)
{
    if (buf_printf(out, "-----BEGIN %s-----\n", label) < 0)
        return -1;
    for (size_t at = 0; at < der.len; at += LINE_BYTES) {
        size_t part = der.len - at < LINE_BYTES ? der.len - at : LINE_BYTES;

        if (base64_encode(slice_of(der.ptr + at, part), out) < 0 || buf_append_byte(out, '\n') < 0)
            return -1;
    }
    return buf_printf(out, "-----END %s-----", label);
}

/* Cuts the next line off *rest, without its end; false when nothing is left. */
static bool next_line(struct slice *rest, struct slice *line)
{
    const uint8_t *lf;

    if (rest->len == 0)
        return false;
    lf = memchr(rest->ptr, '\n', rest->len);
    line->ptr = rest->ptr;
    line->len = lf ? (size_t)(lf - rest->ptr) : rest->len;
    rest->ptr += line->len + (lf ? 1 : 0);
    rest->len -= line->len + (lf ? 1 : 0);
    if (line->len && line->ptr[line->len - 1] == '\r')
        line->len--;
    return true;
}

static bool is_marker(struct slice line, const char *kind, const char *label)
{
    AUTO_FREE char *want = xasprintf("-----%s %s-----", kind, label);

    return slice_equal_str(line, want);
}

int pem_decode(const char *label, struct slice text, struct buf *out, struct error *err)
{
    AUTO_BUF struct buf body = {.max = text.len, .secret = true};
    struct slice line;
    bool found = false;

    while (!found && next_line(&text, &line))
        found = is_marker(line, "BEGIN", label);
    if (!found)
        return error_set(err, ERR_NOT_FOUND, "no PEM block \"%s\"", label);
    while (next_line(&text, &line)) {
        if (is_marker(line, "END", label)) {
            if (base64_decode(buf_slice(&body), out) < 0)
                return error_set(err, ERR_INVALID, "PEM block \"%s\": bad base64", label);
            return 0;
        }
        if (buf_append(&body, line.ptr, line.len) < 0)
            break;
    }
    return error_set(err, ERR_INVALID, "PEM block \"%s\" has no end", label);
}
