#include "base/text.h"

static const char hex_digits[] = "0123456789abcdef";

void hex_encode(struct slice bytes, char *out)
{
    for (size_t i = 0; i < bytes.len; i++) {
        *out++ = hex_digits[bytes.ptr[i] >> 4];
        *out++ = hex_digits[bytes.ptr[i] & 15];
    }
    *out = '\0';
}

char *hex_encode_dup(const char *prefix, struct slice bytes)
{
    size_t plen = strlen(prefix);
    char *text = xmalloc(plen + 2 * bytes.len + 1);

    memcpy(text, prefix, plen);
    hex_encode(bytes, text + plen);
    return text;
}

int hex_digit_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int hex_decode(struct slice text, uint8_t *out, size_t len)
{
    if (text.len != 2 * len)
        return -1;
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit_value(text.ptr[2 * i]), low = hex_digit_value(text.ptr[2 * i + 1]);

        if (high < 0 || low < 0)
            return -1;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

int hex_decode_buf(struct slice text, struct buf *out)
{
    size_t len = text.len / 2;
    uint8_t *to;

    if (text.len % 2)
        return -1;
    to = buf_reserve(out, len);
    if (!to || hex_decode(text, to, len) < 0)
        return -1;
    out->len += len;
    return 0;
}

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_encode(struct slice in, struct buf *out)
{
    size_t len = (in.len + 2) / 3 * 4;
    uint8_t *to = buf_reserve(out, len);

    if (!to)
        return -1;
    for (size_t i = 0; i < in.len; i += 3) {
        size_t have = in.len - i < 3 ? in.len - i : 3;
        uint32_t v = (uint32_t)in.ptr[i] << 16;

        if (have > 1)
            v |= (uint32_t)in.ptr[i + 1] << 8;
        if (have > 2)
            v |= in.ptr[i + 2];
        *to++ = (uint8_t)base64_digits[v >> 18];
        *to++ = (uint8_t)base64_digits[v >> 12 & 63];
        *to++ = have > 1 ? (uint8_t)base64_digits[v >> 6 & 63] : '=';
        *to++ = have > 2 ? (uint8_t)base64_digits[v & 63] : '=';
    }
    out->len += len;
    return 0;
}

static int base64_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    return c == '/' ? 63 : -1;
}

int base64_decode(struct slice text, struct buf *out)
{
    size_t pad = 0, len;
    uint8_t *to;

    if (text.len == 0)
        return 0;
    if (text.len % 4)
        return -1;
    while (pad < 2 && text.ptr[text.len - 1 - pad] == '=')
        pad++;
    len = text.len / 4 * 3 - pad;
    to = buf_reserve(out, len);
    if (!to)
        return -1;
    for (size_t i = 0, done = 0; i < text.len; i += 4) {
        size_t digits = i + 4 == text.len ? 4 - pad : 4;
        uint32_t v = 0;

        for (size_t j = 0; j < 4; j++) {
            int d = j < digits ? base64_value(text.ptr[i + j]) : 0;

            if (d < 0)
                return -1;
            v = v << 6 | (uint32_t)d;
        }
        /* Canonical: the bits below the last whole byte are zero. */
        if ((digits == 2 && (v & 0xffff)) || (digits == 3 && (v & 0xff)))
            return -1;
        for (size_t j = 0; j < digits - 1; j++)
            to[done++] = (uint8_t)(v >> (16 - 8 * j));
    }
    out->len += len;
    return 0;
}

bool utf8_valid(struct slice s)
{
    size_t i = 0;

    while (i < s.len) {
        uint8_t c = s.ptr[i];
        size_t more = c < 0x80                ? 0
                      : c >= 0xc2 && c < 0xe0 ? 1
                      : c >= 0xe0 && c < 0xf0 ? 2
                      : c >= 0xf0 && c < 0xf5 ? 3
                                              : 4;

        if (more == 4 || more >= s.len - i)
            return false;
        for (size_t j = 1; j <= more; j++)
            if ((s.ptr[i + j] & 0xc0) != 0x80)
                return false;
        if (more >= 2) {
            uint8_t d = s.ptr[i + 1];

            if ((c == 0xe0 && d < 0xa0) || (c == 0xed && d > 0x9f) || (c == 0xf0 && d < 0x90) ||
                (c == 0xf4 && d > 0x8f))
                return false;
        }
        i += more + 1;
    }
    return true;
}

int parse_u64(struct slice text, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    if (text.len == 0 || text.len > 20 || (text.len > 1 && text.ptr[0] == '0'))
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        uint64_t digit;

        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return -1;
        digit = (uint64_t)(text.ptr[i] - '0');
        if (v > (UINT64_MAX - digit) / 10)
            return -1;
        v = v * 10 + digit;
    }
    if (v > max)
        return -1;
    *out = v;
    return 0;
}

/* ---- misspelt words ---- */

#define WORD_MAX 32

static char folded(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    return c == '-' ? '_' : c;
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;

    return m < c ? m : c;
}

/* Edits (insert, delete, replace, swap neighbours) from one word to the other. */
static size_t distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    size_t row[3][WORD_MAX + 1];

    for (size_t j = 0; j <= lb; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t *cur = row[i % 3], *up = row[(i + 2) % 3], *upup = row[(i + 1) % 3];

        cur[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            bool same = folded(a[i - 1]) == folded(b[j - 1]);

            cur[j] = min3(up[j] + 1, cur[j - 1] + 1, up[j - 1] + !same);
            if (i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) &&
                folded(a[i - 2]) == folded(b[j - 1]) && upup[j - 2] + 1 < cur[j])
                cur[j] = upup[j - 2] + 1;
        }
    }
    return row[la % 3][lb];
}

/* "memory" for memory_mb, "private_key" for key. */
static bool is_part(const char *word, const char *known)
{
    size_t lw = strlen(word), lk = strlen(known), i = 0;

    while (i < lw && i < lk && folded(word[i]) == folded(known[i]))
        i++;
    return (lw >= 3 && i == lw) || (lw > lk + 1 && folded(word[lw - lk - 1]) == '_' &&
                                    strcasecmp(word + lw - lk, known) == 0);
}

const char *text_nearest_word(const char *word, const char *const *known, size_t count)
{
    size_t len = strlen(word), best = len <= 3 ? 1 : len <= 8 ? 2 : 3;
    const char *found = NULL;

    if (len == 0 || len > WORD_MAX)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t d = strlen(known[i]) <= WORD_MAX ? distance(word, known[i]) : best + 1;

        if (d < best || (d == best && !found)) {
            best = d;
            found = known[i];
        }
    }
    for (size_t i = 0; i < count && !found; i++)
        if (is_part(word, known[i]))
            found = known[i];
    return found;
}

bool text_take_suffix(char *text, const char *suffix)
{
    size_t len = strlen(text), n = strlen(suffix);

    if (len < n || strcmp(text + len - n, suffix) != 0)
        return false;
    text[len - n] = '\0';
    return true;
}
