/* A file system image from a stranger: every file of it is read, or the image refused. */
#include "eif/erofs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int from_slice(void *arg, void *ptr, size_t len, uint64_t offset, struct error *err)
{
    const struct slice *s = arg;

    (void)err;
    if (offset > s->len || len > s->len - offset)
        abort();
    memcpy(ptr, s->ptr + offset, len);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice s = slice_of(data, size), piece;
    struct error err;
    AUTO_EROFS_READER struct erofs_reader *r = erofs_reader_new(from_slice, &s, size, "x", &err);
    struct cpio_entry e;

    while (r && erofs_reader_next(r, &e, &err) > 0) {
        uint64_t left = e.size;
        int rc;

        if (e.name.len == 0 || e.name.len > CPIO_NAME_MAX || e.name.ptr[0] != 'x' ||
            strlen((const char *)e.name.ptr) != e.name.len)
            abort();
        while ((rc = erofs_reader_data(r, &piece, &err)) > 0)
            left -= piece.len;
        if (rc == 0 && left != 0)
            abort();
    }
    return 0;
}
