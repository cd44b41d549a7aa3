/*
 * The text encodings of request members: spec/capsule-api.md section 2.3. "0X" and white space
 * inside are never accepted. Each appends to *out and returns NULL, or, with nothing appended, says
 * what is wrong in words that follow "NAME: ". A value above out->max is "too long".
 */
#ifndef CAPSULE_API_ENCODING_H
#define CAPSULE_API_ENCODING_H

#include "base/slice.h"

/* hex-strict: "0x" or not, then an even number of digits. */
const char *hex_strict_decode(struct slice text, struct buf *out) MUST_USE;
/* hex-data: the same with ASCII white space around it. */
const char *hex_data_decode(struct slice text, struct buf *out) MUST_USE;
/* hex-scalar: as hex-data, of any length; appends the minimal big-endian bytes, none for zero. */
const char *hex_scalar_decode(struct slice text, struct buf *out) MUST_USE;

#endif
