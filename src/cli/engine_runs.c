#include "cli/engine_runs.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/strv.h"
#include "container/life.h"

#include <poll.h>
#include <stdio.h>

#define ASK_MS 100 /* between two looks at a container that is to stop */

/* The runs that only an engine can tell about. */
static bool is_lost(const struct run_entry *e)
{
    return e->state == RUN_DIED && e->record.engine[0] && container_id_valid(e->record.container);
}

static void refresh(struct run_entry *e)
{
    AUTO_CONTAINER_ENGINE struct container_engine engine = {0};
    struct container_state state;
    struct error why = {0};

    if (container_engine_open(e->record.engine, &engine, &why) < 0 ||
        container_inspect(&engine, e->record.container, &state, &why) < 0) {
        log_warn("runs", "how a run is cannot be known", kv_str("run", e->record.id),
                 kv_str("reason", why.msg));
        e->state = RUN_UNWATCHED;
    } else if (state.running) {
        e->state = RUN_UNWATCHED;
    }
}

void engine_runs_refresh(struct run_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        if (is_lost(&l->items[i]))
            refresh(&l->items[i]);
}

/* 1 when it has ended within the time, 0, or -1. */
static int wait_ended(const struct container_engine *engine, const char *id, int64_t ms,
                      struct error *err)
{
    int64_t deadline = clock_mono_ms() + ms;
    struct container_state state;

    for (;;) {
        if (container_inspect(engine, id, &state, err) < 0)
            return -1;
        if (!state.running)
            return 1;
        if (clock_mono_ms() >= deadline)
            return 0;
        poll(NULL, 0, ASK_MS);
    }
}

int engine_runs_stop(const struct run_entry *e, int64_t ms, struct error *err)
{
    AUTO_CONTAINER_ENGINE struct container_engine engine = {0};
    const char *id = e->record.container;
    int rc;

    if (container_engine_open(e->record.engine, &engine, err) < 0 ||
        container_signal(&engine, id, "SIGTERM", err) < 0)
        return -1;
    rc = wait_ended(&engine, id, ms, err);
    if (rc == 0)
        log_warn("stop", "did not stop in time, killing it", kv_str("run", e->record.id));
    return rc < 0 ? -1 : container_remove(&engine, id, err);
}

/* ---- prune ---- */

/* Nobody of this user needs it; what another has just made may be about to start. */
static bool is_left(const struct run_list *l, const struct container_row *row)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->items[i].record.id, row->run) == 0)
            return !run_state_lives(l->items[i].state);
    return !row->running;
}

static int prune_engine(const struct container_engine *e, const struct run_list *l, size_t *removed,
                        struct error *err)
{
    AUTO_FREE struct container_row *rows = NULL;
    size_t count;

    if (container_list(e, &rows, &count, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (!is_left(l, &rows[i]))
            continue;
        if (container_remove(e, rows[i].id, err) < 0)
            return -1;
        ++*removed;
    }
    return 0;
}

static void add_once(char ***v, const char *socket)
{
    for (char **s = *v; s && *s; s++)
        if (strcmp(*s, socket) == 0)
            return;
    strv_add(v, socket);
}

int engine_runs_prune(const struct run_list *l, size_t *removed, struct error *err)
{
    static const char *const usual[] = {"docker", "podman"};
    AUTO_STRV char **sockets = NULL;
    int rc = 0;

    for (size_t i = 0; i < ARRAY_LEN(usual); i++) {
        AUTO_CONTAINER_ENGINE struct container_engine e = {0};
        struct error why = {0};

        if (container_engine_open(usual[i], &e, &why) == 0)
            add_once(&sockets, e.socket);
    }
    for (size_t i = 0; i < l->count; i++)
        if (l->items[i].record.engine[0])
            add_once(&sockets, l->items[i].record.engine);
    for (char **s = sockets; s && *s; s++) {
        AUTO_CONTAINER_ENGINE struct container_engine e = {0};
        struct error why = {0};

        if (container_engine_open(*s, &e, &why) < 0) {
            log_warn("prune", why.msg); /* it may be gone for good */
        } else if (prune_engine(&e, l, removed, rc == 0 ? err : &why) < 0) {
            rc = -1;
        }
    }
    return rc;
}
