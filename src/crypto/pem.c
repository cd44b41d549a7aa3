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

/*
 * Cuts the next line off *rest, without its end (LF, CRLF or CR) and the blanks before it; false
 * when nothing is left.
 */
static bool next_line(struct slice *rest, struct slice *line)
{
    size_t len = 0, end;

    if (rest->len == 0)
        return false;
    while (len < rest->len && rest->ptr[len] != '\n' && rest->ptr[len] != '\r')
        len++;
    end = len < rest->len ? len + 1 : len;
    if (end < rest->len && rest->ptr[end - 1] == '\r' && rest->ptr[end] == '\n')
        end++;
    *line = slice_of(rest->ptr, len);
    *rest = slice_of(rest->ptr + end, rest->len - end);
    while (line->len && (line->ptr[line->len - 1] == ' ' || line->ptr[line->len - 1] == '\t'))
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
