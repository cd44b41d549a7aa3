#include "container/frames.h"

static int open_frame(struct container_frames *f, struct error *err)
{
    if (f->head[0] > 3 || f->head[1] || f->head[2] || f->head[3])
        return error_set(err, ERR_NET, "the engine's log is not in frames (%02x %02x %02x %02x)",
                         f->head[0], f->head[1], f->head[2], f->head[3]);
    f->left = get_be32(f->head + 4);
    if (f->left == 0)
        f->have = 0;
    return 0;
}

int container_frames_feed(struct container_frames *f, struct slice bytes,
                          void (*out)(void *arg, int stream, struct slice bytes), void *arg,
                          struct error *err)
{
    while (bytes.len > 0) {
        size_t n = 1;

        if (f->have < sizeof(f->head)) {
            f->head[f->have++] = bytes.ptr[0];
            if (f->have == sizeof(f->head) && open_frame(f, err) < 0)
                return -1;
        } else {
            n = f->left < bytes.len ? f->left : bytes.len;
            out(arg, f->head[0] < 2 ? 1 : 2, slice_of(bytes.ptr, n));
            f->left -= (uint32_t)n;
            if (f->left == 0)
                f->have = 0;
        }
        bytes = slice_of(bytes.ptr + n, bytes.len - n);
    }
    return 0;
}
