/*
 * What the user sees of bytes on their way, in and out: a bar for each blob under way on a
 * terminal, else a line a blob.
 */
#ifndef CAPSULE_OCI_PROGRESS_H
#define CAPSULE_OCI_PROGRESS_H

#include "oci/fetch.h"

/* Zero-initialise. */
struct progress {
    unsigned int lines; /* of bars on the screen, the cursor below them */
    int64_t last_ms;
};
/* Redraws the bar of one blob, as often as is of use; `what` is "layer sha256:..." or the like. */
void progress_show(struct progress *p, const char *what, uint64_t done, uint64_t size);
/* Takes the bars away: before a line is logged, and at the end. */
void progress_end(struct progress *p);

/* For struct fetch_progress: several at a time; `arg` is the struct above. */
void progress_show_fetches(void *arg, const struct fetch *f, size_t count);
void progress_pulled(void *arg, const struct fetch *f);

#endif
