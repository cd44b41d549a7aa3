#include "oci/registry_progress.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>

#define REDRAW_MS 100
#define BAR_WIDTH 30
#define NAME_SHOW 25 /* of "layer sha256:..." */

void registry_progress_end(struct registry_progress *p)
{
    if (p->lines)
        fprintf(stderr, "\033[%uA\033[J", p->lines);
    p->lines = 0;
}

static void draw(const struct fetch *f)
{
    unsigned int filled = (unsigned int)((double)f->received / (double)f->size * BAR_WIDTH);

    fprintf(stderr, "%.*s [%.*s%*s] %" PRIu64 " of %" PRIu64 " KiB\n", NAME_SHOW, f->what,
            (int)filled, "##############################", (int)(BAR_WIDTH - filled), "",
            f->received >> 10, f->size >> 10);
}

void registry_progress_show(void *arg, const struct fetch *f, size_t count)
{
    struct registry_progress *p = arg;
    int64_t now = clock_mono_ms();

    if (now - p->last_ms < REDRAW_MS || !isatty(STDERR_FILENO))
        return;
    p->last_ms = now;
    registry_progress_end(p);
    for (size_t i = 0; i < count && p->lines < FETCH_PARALLEL; i++) {
        if (f[i].received == 0 || f[i].received == f[i].size)
            continue;
        draw(&f[i]);
        p->lines++;
    }
}

void registry_progress_done(void *arg, const struct fetch *f)
{
    registry_progress_end(arg);
    log_info("image", "pulled", kv_str("what", f->what), kv_uint("bytes", f->size));
}
