/*
 * The progress of a long call (images/create, build): a JSON object a line, with "status" or
 * "stream" for people, or with "error", which makes a call with a good HTTP status fail.
 */
#ifndef CAPSULE_CONTAINER_PROGRESS_H
#define CAPSULE_CONTAINER_PROGRESS_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>

#define CONTAINER_PROGRESS_LINE_MAX 65536u

struct container_progress {
    struct buf line; /* unfinished */
    /* Called with every line's text, "" when it says nothing; false ends the call. */
    bool (*going)(void *arg, const char *text);
    void *arg;
    struct error fault; /* kind ERR_NONE while all is well */
};
#define CONTAINER_PROGRESS(function, argument)                                                     \
    ((struct container_progress){                                                                  \
        .line = BUF(CONTAINER_PROGRESS_LINE_MAX), .going = (function), .arg = (argument)})

/* For container_stream_begin(): takes the next bytes, in pieces of any size. */
bool container_progress_take(void *progress, struct slice bytes);
static inline void container_progress_free(struct container_progress *p)
{
    buf_free(&p->line);
}

#endif
