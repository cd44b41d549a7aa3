#include "codec/cbor.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Everything the parser lets through must be walkable without a failure. */
static void walk(const struct cbor_item *item)
{
    struct cbor_iter it = cbor_iter_of(item);
    struct cbor_item key, value;

    if (item->type == CBOR_MAP) {
        uint64_t count = 0;

        while (cbor_next_entry(&it, &key, &value)) {
            walk(&value);
            count++;
        }
        if (count != item->n)
            abort();
    } else {
        while (cbor_next(&it, &value))
            walk(&value);
    }
    if (it.left != 0 || reader_left(&it.r) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cbor_item item;
    struct error err;

    if (cbor_parse(slice_of(data, size), &item, &err) == 0)
        walk(&item);
    return 0;
}
