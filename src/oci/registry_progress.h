/* What the user sees of a pull: a bar for each layer under way on a terminal, else a line a layer.
 */
#ifndef CAPSULE_OCI_REGISTRY_PROGRESS_H
#define CAPSULE_OCI_REGISTRY_PROGRESS_H

#include "oci/fetch.h"

/* Zero-initialise. */
struct registry_progress {
    unsigned int lines; /* of bars on the screen, the cursor below them */
    int64_t last_ms;
};
/* For struct fetch_progress; `arg` is the struct above. */
void registry_progress_show(void *arg, const struct fetch *f, size_t count);
void registry_progress_done(void *arg, const struct fetch *f);
/* Takes the bars away. */
void registry_progress_end(struct registry_progress *p);

#endif
