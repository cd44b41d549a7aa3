#include "base/slice.h"

#include <stdio.h>
#include <strings.h>

bool slice_equal(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool slice_equal_str(struct slice a, const char *s)
{
    return slice_equal(a, slice_str(s));
}

bool slice_equal_str_nocase(struct slice a, const char *s)
{
    return a.len == strlen(s) && (a.len == 0 || strncasecmp((const char *)a.ptr, s, a.len) == 0);
}

int slice_compare(struct slice a, struct slice b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common ? memcmp(a.ptr, b.ptr, common) : 0;

    if (order != 0)
        return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

char *slice_dup_str(struct slice s)
{
    char *p = xmalloc(s.len + 1);

    if (s.len)
        memcpy(p, s.ptr, s.len);
    p[s.len] = '\0';
    return p;
}

void buf_free(struct buf *b)
{
    if (b->secret)
        mem_wipe(b->ptr, b->cap);
    free(b->ptr);
    b->ptr = NULL;
    b->len = b->cap = 0;
}

void buf_clear(struct buf *b)
{
    if (b->secret)
        mem_wipe(b->ptr, b->cap);
    b->len = 0;
}

/* Moves to a larger block; realloc would leave an unwiped copy of a secret behind. */
static void grow(struct buf *b, size_t cap)
{
    uint8_t *p;

    if (!b->secret) {
        b->ptr = xreallocarray(b->ptr, cap, 1);
        b->cap = cap;
        return;
    }
    p = xmalloc(cap);
    if (b->ptr)
        memcpy(p, b->ptr, b->len);
    mem_wipe(b->ptr, b->cap);
    free(b->ptr);
    b->ptr = p;
    b->cap = cap;
}

uint8_t *buf_reserve(struct buf *b, size_t len)
{
    size_t want, cap;

    if (len > b->max || b->len > b->max - len)
        return NULL;
    /* One byte more than asked, so that buf_cstr() always has room for its NUL. */
    want = b->len + len + 1;
    if (want > b->cap) {
        cap = b->cap < 64 ? 64 : b->cap;
        while (cap < want)
            cap += cap / 2;
        if (cap > b->max + 1)
            cap = b->max + 1;
        grow(b, cap);
    }
    return b->ptr + b->len;
}

int buf_append(struct buf *b, const void *ptr, size_t len)
{
    uint8_t *to = buf_reserve(b, len);

    if (!to)
        return -1;
    if (len)
        memcpy(to, ptr, len);
    b->len += len;
    return 0;
}

int buf_append_byte(struct buf *b, uint8_t byte)
{
    return buf_append(b, &byte, 1);
}

int buf_append_str(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    int need;
    uint8_t *to;

    va_start(ap, fmt);
    need = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (need < 0)
        return -1;
    to = buf_reserve(b, (size_t)need);
    if (!to)
        return -1;
    va_start(ap, fmt);
    vsnprintf((char *)to, (size_t)need + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)need;
    return 0;
}

void buf_consume(struct buf *b, size_t len)
{
    if (len >= b->len) {
        buf_clear(b);
        return;
    }
    memmove(b->ptr, b->ptr + len, b->len - len);
    if (b->secret)
        mem_wipe(b->ptr + b->len - len, len);
    b->len -= len;
}

const char *buf_cstr(struct buf *b)
{
    if (!b->ptr)
        grow(b, 64);
    b->ptr[b->len] = '\0';
    return (const char *)b->ptr;
}

bool reader_take(struct reader *r, size_t len, struct slice *out)
{
    if (len > reader_left(r))
        return false;
    *out = slice_of(r->pos, len);
    r->pos += len;
    return true;
}

bool reader_u8(struct reader *r, uint8_t *out)
{
    if (r->pos == r->end)
        return false;
    *out = *r->pos++;
    return true;
}

bool reader_be16(struct reader *r, uint16_t *out)
{
    struct slice s;

    if (!reader_take(r, 2, &s))
        return false;
    *out = get_be16(s.ptr);
    return true;
}

bool reader_be32(struct reader *r, uint32_t *out)
{
    struct slice s;

    if (!reader_take(r, 4, &s))
        return false;
    *out = get_be32(s.ptr);
    return true;
}

bool reader_be64(struct reader *r, uint64_t *out)
{
    struct slice s;

    if (!reader_take(r, 8, &s))
        return false;
    *out = get_be64(s.ptr);
    return true;
}

bool reader_le16(struct reader *r, uint16_t *out)
{
    uint16_t v;

    if (!reader_be16(r, &v))
        return false;
    *out = __builtin_bswap16(v);
    return true;
}

bool reader_le32(struct reader *r, uint32_t *out)
{
    uint32_t v;

    if (!reader_be32(r, &v))
        return false;
    *out = __builtin_bswap32(v);
    return true;
}

bool reader_le64(struct reader *r, uint64_t *out)
{
    uint64_t v;

    if (!reader_be64(r, &v))
        return false;
    *out = __builtin_bswap64(v);
    return true;
}
