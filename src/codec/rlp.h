/*
 * RLP, the recursive length prefix of Ethereum (yellow paper, appendix B), canonical only: one
 * encoding for each item. No recursion: a list is a payload that the caller walks.
 */
#ifndef CAPSULE_CODEC_RLP_H
#define CAPSULE_CODEC_RLP_H

#include "base/slice.h"

/*
 * The next item, which must be a string or a list; *out is its content, pointing into the input.
 * False, with the reader unmoved, when it is of the other kind, crosses the end, or is not in its
 * shortest form (a length with leading zeros or below 56 in the long form, one byte below 0x80
 * written as a string).
 */
bool rlp_read_string(struct reader *r, struct slice *out) MUST_USE;
bool rlp_read_list(struct reader *r, struct slice *payload) MUST_USE;
/* A string that is an integer: no leading zeros, zero is empty, at most `max_len` bytes. */
bool rlp_read_integer(struct reader *r, size_t max_len, struct slice *out) MUST_USE;
/* A list begins here (true) or a string, or nothing (false). For items of either kind. */
bool rlp_at_list(const struct reader *r);

/* The string that a big-endian integer is: its bytes without leading zeros. */
struct slice rlp_integer(struct slice big_endian);

/* How many bytes the encoding takes. */
size_t rlp_string_size(struct slice bytes);
size_t rlp_list_size(size_t payload_len);

/* These append; -1, with nothing appended, when the buf is full. */
int rlp_put_string(struct buf *out, struct slice bytes) MUST_USE;
/* The head of a list; its items, `payload_len` encoded bytes, come next. */
int rlp_put_list_head(struct buf *out, size_t payload_len) MUST_USE;

#endif
