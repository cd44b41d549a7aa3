/* Text encodings (hex, base64), UTF-8, and the ends of words. All decoders are strict: they never
 * guess. */
#ifndef CAPSULE_BASE_TEXT_H
#define CAPSULE_BASE_TEXT_H

#include "base/slice.h"

/* Lower-case hex of `bytes` and a NUL into `out`, which has room for 2 * len + 1. */
void hex_encode(struct slice bytes, char *out);
/* The same on the heap, after `prefix` ("" or "0x"). The caller frees it. */
char *hex_encode_dup(const char *prefix, struct slice bytes) MUST_USE;
/* The value of one hex digit of either case, or -1. */
int hex_digit_value(uint8_t c);
/*
 * Decodes exactly 2 * len hex digits of either case. Returns 0, or -1 for any other length or
 * byte; `out` is then undefined.
 */
int hex_decode(struct slice text, uint8_t *out, size_t len) MUST_USE;
/* Appends the decoded bytes of an even number of hex digits; -1 on a bad digit or a full buf. */
int hex_decode_buf(struct slice text, struct buf *out) MUST_USE;

/* Appends standard base64 (RFC 4648 section 4) with padding; -1 when the buf is full. */
int base64_encode(struct slice bytes, struct buf *out) MUST_USE;
/*
 * Appends the bytes of canonical padded base64: no white space, no URL alphabet, unused bits zero.
 * Returns -1, with nothing appended, on anything else or a full buf.
 */
int base64_decode(struct slice text, struct buf *out) MUST_USE;

/* True for well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF). */
bool utf8_valid(struct slice text);

/*
 * A strict unsigned decimal: digits only, no sign, no space, no leading zero (but "0"), at most
 * `max`. Returns 0 or -1.
 */
int parse_u64(struct slice text, uint64_t max, uint64_t *out) MUST_USE;

/* Cuts `suffix` off the end of `text`, if it is there; whether it was. */
bool text_take_suffix(char *text, const char *suffix);

/*
 * The known word that a misspelt one most likely means: a few letters away, or begun or ended
 * alike. NULL when there is none. Case, and "-" for "_", do not count.
 */
const char *text_nearest_word(const char *word, const char *const *known, size_t count);

#endif
