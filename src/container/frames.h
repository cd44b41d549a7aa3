/*
 * The log stream of containers without a terminal: frames of a byte for the stream (1 standard
 * output, 2 standard error), three zero bytes, the length as 32 bits big-endian, and as many bytes
 * (Docker Engine API, ContainerAttach, "Stream format").
 */
#ifndef CAPSULE_CONTAINER_FRAMES_H
#define CAPSULE_CONTAINER_FRAMES_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>

struct container_frames {
    uint8_t head[8];
    unsigned int have; /* bytes of the head */
    uint32_t left;     /* bytes of the frame still to come */
};

/*
 * Takes the next bytes in pieces of any size, keeps none but an unfinished head, and calls `out`
 * with what they hold, in order. What the engine itself says in the stream (3) counts as 2. -1
 * when it is no such stream.
 */
int container_frames_feed(struct container_frames *f, struct slice bytes,
                          void (*out)(void *arg, int stream, struct slice bytes), void *arg,
                          struct error *err);
/* False in the middle of a frame. */
static inline bool container_frames_whole(const struct container_frames *f)
{
    return f->have == 0;
}

#endif
