/* What every cmocka test includes, in the order cmocka wants. */
#ifndef CAPSULE_TESTS_UNIT_H
#define CAPSULE_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/slice.h"
#include "base/text.h"

/* Fails with the error's own sentence. */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, err.msg);                                                    \
    } while (0)

/* Bytes of a hex literal, owned by *b. */
static inline struct slice hex_slice(struct buf *b, const char *hex)
{
    *b = BUF(1 << 20);
    if (hex_decode_buf(slice_str(hex), b) < 0)
        fail_msg("bad hex in test");
    return buf_slice(b);
}

#endif
