/*
 * A host that answers the FUSE requests of a lane: the input is a row of messages, each one byte
 * (odd: a request of the kernel, even: a reply), two bytes of length, and that many bytes.
 */
#include "enclave/fuse_check.h"
#include "vsock/mountproto.h"

#include <linux/fuse.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The kernel's requests are never as wild as the bytes here: their length and number are right. */
static void ask(struct fuse_check *c, struct slice bytes, uint64_t *unique)
{
    AUTO_FREE uint8_t *request = xmemdup(bytes.ptr, bytes.len);
    struct error err;

    if (bytes.len < sizeof(struct fuse_in_header) || fuse_check_full(c))
        return;
    put_le32(request, (uint32_t)bytes.len);
    put_le64(request + offsetof(struct fuse_in_header, unique), *unique += 2);
    if (fuse_check_request(c, slice_of(request, bytes.len), 0, &err) < 0 &&
        err.kind != ERR_INTERNAL)
        abort();
}

/* Whatever is let through obeys the kernel's own rules. */
static void answer(struct fuse_check *c, struct slice bytes)
{
    size_t before = c->count, len = 0;
    struct fuse_out_header h;
    struct error err;

    if (bytes.len < sizeof(h) ||
        fuse_check_header(c, slice_of(bytes.ptr, sizeof(h)), &len, &err) < 0) {
        if (fuse_check_reply(c, bytes, &err) == 0)
            abort();
        return;
    }
    memcpy(&h, bytes.ptr, sizeof(h));
    if (len != h.len || len > MOUNT_MESSAGE_MAX || h.unique == 0 || h.error > 0 || h.error < -511 ||
        (h.error && len != sizeof(h)))
        abort();
    if (fuse_check_reply(c, bytes, &err) < 0)
        return;
    if (len != bytes.len || c->count + !(h.unique & 1) != before)
        abort();
    if (!(h.unique & 1) && fuse_check_reply(c, bytes, &err) == 0)
        abort(); /* twice */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reader r = reader_of(slice_of(data, size));
    struct fuse_check check;
    uint64_t unique = 0;
    struct slice bytes;
    struct error err;
    uint16_t len;
    uint8_t kind;

    fuse_check_init(&check);
    while (reader_u8(&r, &kind) && reader_le16(&r, &len) && reader_take(&r, len, &bytes)) {
        if (kind & 1)
            ask(&check, bytes, &unique);
        else
            answer(&check, bytes);
    }
    if (check.count > FUSE_ASKED_MAX)
        abort();
    (void)fuse_check_overdue(&check, FUSE_ANSWER_MS, &err);
    fuse_check_free(&check);
    return 0;
}
