#include "oci/progress.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>

#define REDRAW_MS 100
#define BAR_WIDTH 30
#define NAME_SHOW 25 /* of "layer sha256:..." */

void progress_end(struct progress *p)
{
    if (p->lines)
        fprintf(stderr, "\033[%uA\033[J", p->lines);
    p->lines = 0;
}

/* True when it is time; the old bars are gone then. */
static bool begin(struct progress *p)
{
    int64_t now = clock_mono_ms();

    if (now - p->last_ms < REDRAW_MS || !isatty(STDERR_FILENO))
        return false;
    p->last_ms = now;
    progress_end(p);
    return true;
}

static void draw(struct progress *p, const char *what, uint64_t done, uint64_t size)
{
    unsigned int filled = (unsigned int)((double)done / (double)size * BAR_WIDTH);

    if (done == 0 || done >= size)
        return;
    fprintf(stderr, "%.*s [%.*s%*s] %" PRIu64 " of %" PRIu64 " KiB\n", NAME_SHOW, what, (int)filled,
            "##############################", (int)(BAR_WIDTH - filled), "", done >> 10,
            size >> 10);
    p->lines++;
}

void progress_show(struct progress *p, const char *what, uint64_t done, uint64_t size)
{
    if (begin(p))
        draw(p, what, done, size);
}

void progress_show_fetches(void *arg, const struct fetch *f, size_t count)
{
    struct progress *p = arg;

    if (!begin(p))
        return;
    for (size_t i = 0; i < count && p->lines < FETCH_PARALLEL; i++)
        draw(p, f[i].what, f[i].received, f[i].size);
}

void progress_pulled(void *arg, const struct fetch *f)
{
    progress_end(arg);
    log_info("image", "pulled", kv_str("what", f->what), kv_uint("bytes", f->size));
}
