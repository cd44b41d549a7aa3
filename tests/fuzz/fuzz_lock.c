/* capsule.lock: what is accepted can be written, and is the same when it is read again. */
#include "oci/lock.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_LOCK struct lock one = {0}, two = {0};
    AUTO_BUF struct buf first = BUF(LOCK_TEXT_MAX), second = BUF(LOCK_TEXT_MAX);

    if (lock_parse(slice_of(data, size), &one, NULL) < 0)
        return 0;
    for (size_t i = 0; i < one.count; i++) {
        char *pinned = lock_pin(&one.entries[i], one.entries[i].reference);

        (void)lock_is_pinned(pinned);
        free(pinned);
    }
    /* Escapes may make it longer than what was read. */
    if (lock_write(&one, &first, NULL) < 0)
        return 0;
    if (lock_parse(buf_slice(&first), &two, NULL) < 0 || lock_write(&two, &second, NULL) < 0 ||
        !slice_equal(buf_slice(&first), buf_slice(&second)))
        abort();
    return 0;
}
