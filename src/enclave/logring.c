#include "enclave/logring.h"

void logring_free(struct logring *r)
{
    free(r->ptr);
    *r = (struct logring){0};
}

void logring_write(struct logring *r, const void *ptr, size_t len)
{
    const uint8_t *from = ptr;

    if (!r->ptr)
        r->ptr = xmalloc(LOGRING_BYTES);
    while (len) {
        size_t at = (size_t)(r->end % LOGRING_BYTES), piece = LOGRING_BYTES - at;

        if (piece > len)
            piece = len;
        memcpy(r->ptr + at, from, piece);
        from += piece;
        len -= piece;
        r->end += piece;
    }
}

uint64_t logring_start(const struct logring *r)
{
    return r->end > LOGRING_BYTES ? r->end - LOGRING_BYTES : 0;
}

uint64_t logring_seek(const struct logring *r, uint64_t offset)
{
    uint64_t at = logring_start(r);

    if (offset >= at)
        return offset < r->end ? offset : r->end;
    while (at < r->end) {
        struct slice piece = logring_peek(r, at);
        const uint8_t *newline = piece.ptr ? memchr(piece.ptr, '\n', piece.len) : NULL;

        if (newline)
            return at + (uint64_t)(newline - piece.ptr) + 1;
        at += piece.len;
    }
    return logring_start(r); /* one huge line: its tail is better than nothing */
}

struct slice logring_peek(const struct logring *r, uint64_t offset)
{
    size_t at = (size_t)(offset % LOGRING_BYTES), piece = LOGRING_BYTES - at;
    uint64_t left = r->end - offset;

    if (left == 0)
        return slice_of(NULL, 0);
    return slice_of(r->ptr + at, left < piece ? (size_t)left : piece);
}
