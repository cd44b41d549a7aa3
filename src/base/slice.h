/*
 * The byte types: `slice` is borrowed, `buf` owns and grows up to a hard maximum, `reader` walks
 * over untrusted bytes and cannot run past their end. (`queue`, the bounded one, is in queue.h.)
 */
#ifndef CAPSULE_BASE_SLICE_H
#define CAPSULE_BASE_SLICE_H

#include "base/mem.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes that somebody else owns and keeps alive. {NULL, 0} is the empty slice. */
struct slice {
    const uint8_t *ptr;
    size_t len;
};

static inline struct slice slice_of(const void *ptr, size_t len)
{
    return (struct slice){ptr, len};
}

/* The bytes of a C string, without its NUL. */
static inline struct slice slice_str(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

bool slice_equal(struct slice a, struct slice b);
bool slice_equal_str(struct slice a, const char *s);
/* ASCII case-insensitive. */
bool slice_equal_str_nocase(struct slice a, const char *s);
/* As memcmp, then the shorter first: the order of the bytes as unsigned numbers. */
int slice_compare(struct slice a, struct slice b);
/* A NUL-terminated heap copy; NUL bytes inside are kept. The caller frees it. */
char *slice_dup_str(struct slice s) MUST_USE;

/* Owned bytes. Zero-initialise with BUF(max), release with buf_free() or AUTO_BUF. */
struct buf {
    uint8_t *ptr;
    size_t len;
    size_t cap;
    size_t max;  /* never holds more than this many bytes */
    bool secret; /* every byte is wiped before its memory is given back */
};

#define BUF(limit)        ((struct buf){.max = (limit)})
#define BUF_SECRET(limit) ((struct buf){.max = (limit), .secret = true})

/* Frees (and wipes, when secret) the bytes; the buf is empty and usable again. */
void buf_free(struct buf *b);
#define AUTO_BUF CLEANUP(buf_free)

/* Forgets the bytes (wiping them when secret) and keeps the memory. */
void buf_clear(struct buf *b);
/*
 * Makes room for `len` more bytes and returns where they go, or NULL, with nothing changed, when
 * that would pass b->max. The caller fills them and adds to b->len.
 */
uint8_t *buf_reserve(struct buf *b, size_t len) MUST_USE;
/* The appenders return 0, or -1 with nothing appended when that would pass b->max. */
int buf_append(struct buf *b, const void *ptr, size_t len) MUST_USE;
int buf_append_byte(struct buf *b, uint8_t byte) MUST_USE;
int buf_append_str(struct buf *b, const char *s) MUST_USE;
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3))) MUST_USE;
/* Drops the first `len` bytes (at most b->len). */
void buf_consume(struct buf *b, size_t len);
/* NUL-terminates without counting the NUL and returns the text; valid until the next change. */
const char *buf_cstr(struct buf *b);

static inline struct slice buf_slice(const struct buf *b)
{
    return (struct slice){b->ptr, b->len};
}

/*
 * A cursor over untrusted bytes. Each read returns true and moves on, or returns false and leaves
 * cursor and output alone.
 */
struct reader {
    const uint8_t *pos;
    const uint8_t *end;
};

static inline struct reader reader_of(struct slice s)
{
    return (struct reader){s.ptr, s.ptr ? s.ptr + s.len : s.ptr};
}
static inline size_t reader_left(const struct reader *r)
{
    return (size_t)(r->end - r->pos);
}
bool reader_u8(struct reader *r, uint8_t *out) MUST_USE;
bool reader_be16(struct reader *r, uint16_t *out) MUST_USE;
bool reader_be32(struct reader *r, uint32_t *out) MUST_USE;
bool reader_be64(struct reader *r, uint64_t *out) MUST_USE;
bool reader_le16(struct reader *r, uint16_t *out) MUST_USE;
bool reader_le32(struct reader *r, uint32_t *out) MUST_USE;
bool reader_le64(struct reader *r, uint64_t *out) MUST_USE;
/* A slice of the next `len` bytes, pointing into the input. */
bool reader_take(struct reader *r, size_t len, struct slice *out) MUST_USE;

/* Fixed-width integers in memory of any alignment. */
static inline uint16_t get_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t get_be32(const uint8_t *p)
{
    return (uint32_t)get_be16(p) << 16 | get_be16(p + 2);
}
static inline uint64_t get_be64(const uint8_t *p)
{
    return (uint64_t)get_be32(p) << 32 | get_be32(p + 4);
}
static inline void put_be16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void put_be32(uint8_t *p, uint32_t v)
{
    put_be16(p, (uint16_t)(v >> 16));
    put_be16(p + 2, (uint16_t)v);
}
static inline void put_be64(uint8_t *p, uint64_t v)
{
    put_be32(p, (uint32_t)(v >> 32));
    put_be32(p + 4, (uint32_t)v);
}
static inline uint16_t get_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline void put_le16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}
static inline uint32_t get_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline void put_le32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}
static inline uint64_t get_le64(const uint8_t *p)
{
    return (uint64_t)get_le32(p) | (uint64_t)get_le32(p + 4) << 32;
}
static inline void put_le64(uint8_t *p, uint64_t v)
{
    put_le32(p, (uint32_t)v);
    put_le32(p + 4, (uint32_t)(v >> 32));
}

#endif
