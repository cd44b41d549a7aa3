#include "codec/json.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is accepted must survive being rewritten from its source text, with equal content. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_JSON json_t *root = NULL, *again = NULL;
    AUTO_BUF struct buf out = BUF(size * 6 + 64);
    struct json_writer w = {.out = &out};
    struct json_members it = json_members_of(slice_of(data, size));
    enum json_problem problem;
    struct slice name, value;
    struct error err;
    size_t count = 0;

    if (json_read_object(slice_of(data, size), &root, &problem, &err) < 0)
        return 0;
    json_put_object(&w);
    while (json_members_next(&it, &name, &value)) {
        json_put_source_key(&w, name);
        json_put_source(&w, value);
        count++;
    }
    json_put_object_end(&w);
    if (w.failed || count != json_object_size(root))
        abort();
    if (json_read_object(buf_slice(&out), &again, &problem, &err) < 0 || !json_equal(root, again))
        abort();
    return 0;
}
