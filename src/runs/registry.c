#include "runs/registry.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "base/xdg.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

char *runs_dir(struct error *err)
{
    AUTO_FREE char *parent = xdg_runtime_dir(PATH_MAX / 2);
    char *dir;

    if (!parent) {
        error_set(err, ERR_DENIED, "no private directory for the records of runs");
        error_hint(err, "set XDG_RUNTIME_DIR to a directory of your own");
        return NULL;
    }
    dir = xasprintf("%s/runs", parent);
    if (mkdir(dir, 0700) == 0 || errno == EEXIST)
        return dir;
    error_sys(err, errno, "making directory %s", dir);
    free(dir);
    return NULL;
}

void run_place_close(struct run_place *p)
{
    free(p->dir);
    fd_close(&p->lock_fd);
    *p = RUN_PLACE_NONE;
}

void run_entry_free(struct run_entry *e)
{
    run_record_free(&e->record);
    free(e->dir);
    *e = (struct run_entry){0};
}

void run_list_free(struct run_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        run_entry_free(&l->items[i]);
    free(l->items);
    *l = (struct run_list){0};
}

const char *run_state_name(enum run_state state)
{
    static const char *const names[] = {"starting",  "running", "stopping",
                                        "unwatched", "exited",  "died"};

    return names[state];
}

/*
 * Whoever makes or removes runs holds this, so that a name is given once and nobody removes a
 * directory that has no lock yet. Closing lets go.
 */
static int lock_all(const char *runs, struct error *err)
{
    AUTO_FREE char *path = xasprintf("%s/.lock", runs);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd >= 0) {
        while (flock(fd, LOCK_EX) < 0)
            if (errno != EINTR)
                break;
        return fd;
    }
    return error_sys(err, errno, "opening %s", path);
}

/* ---- reading ---- */

/* Does somebody hold the run's lock? */
static bool is_held(const char *dir)
{
    AUTO_FREE char *path = xasprintf("%s/lock", dir);
    AUTO_FD int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static bool shell_lives(const struct run_record *r)
{
    AUTO_FD int fd = run_process_open(r, &r->shell);

    return fd >= 0;
}

static int read_record(const char *dir, struct run_record *out, struct error *err)
{
    AUTO_FREE char *path = xasprintf("%s/run.json", dir);
    AUTO_BUF struct buf text = BUF(RUN_RECORD_MAX);

    if (file_read(path, &text, err) < 0)
        return -1;
    return run_record_parse(buf_slice(&text), out, err) < 0 ? error_wrap(err, "reading %s", path)
                                                            : 0;
}

static enum run_state state_of(bool held, const struct run_record *r)
{
    if (r->ended_ms)
        return RUN_EXITED;
    if (held)
        return r->up ? RUN_RUNNING : RUN_STARTING;
    return shell_lives(r) ? RUN_STOPPING : RUN_DIED;
}

int run_entry_refresh(struct run_entry *e, struct error *err)
{
    /* The lock first: whoever lets go of it has written the record before. */
    bool held = is_held(e->dir);
    struct run_record now;

    if (read_record(e->dir, &now, err) < 0)
        return -1;
    run_record_free(&e->record);
    e->record = now;
    e->state = state_of(held, &now);
    return 0;
}

static int newest_first(const void *a, const void *b)
{
    const struct run_entry *x = a, *y = b;

    return x->record.started_ms < y->record.started_ms   ? 1
           : x->record.started_ms > y->record.started_ms ? -1
                                                         : strcmp(x->record.id, y->record.id);
}

static void take_up(struct run_list *l, char *dir)
{
    struct run_entry e = {.dir = dir};
    struct error why = {0};

    if (run_entry_refresh(&e, &why) == 0) {
        l->items[l->count++] = e;
        return;
    }
    /* A run that is about to begin, or to be removed, has none. */
    if (why.kind != ERR_NOT_FOUND)
        log_warn("runs", "the record of a run cannot be read; `capsule-cli prune` removes it",
                 kv_str("reason", why.msg));
    run_entry_free(&e);
}

int runs_list(const char *runs, struct run_list *out, struct error *err)
{
    DIR *d = opendir(runs);
    struct dirent *e;

    if (!d)
        return error_sys(err, errno, "opening %s", runs);
    *out = (struct run_list){.items = xcalloc(RUNS_MAX, sizeof(*out->items))};
    while ((e = readdir(d)) != NULL && out->count < RUNS_MAX)
        if (strlen(e->d_name) == RUN_ID_LEN && e->d_name[0] != '.')
            take_up(out, xasprintf("%s/%s", runs, e->d_name));
    closedir(d);
    qsort(out->items, out->count, sizeof(*out->items), newest_first);
    return 0;
}

/* The index of the run that is meant, or count. The list is sorted. */
static size_t find(const struct run_list *l, const char *ref, bool *several)
{
    size_t named = l->count, begun = l->count;

    *several = false;
    for (size_t i = 0; i < l->count; i++) {
        const struct run_entry *e = &l->items[i];

        if (strcmp(e->record.id, ref) == 0)
            return i;
        if (strcmp(e->record.name, ref) == 0 &&
            (named == l->count ||
             (run_state_lives(e->state) && !run_state_lives(l->items[named].state))))
            named = i;
        if (ref[0] && strncmp(e->record.id, ref, strlen(ref)) == 0) {
            *several = begun < l->count;
            begun = i;
        }
    }
    if (named == l->count)
        return begun;
    *several = false;
    return named;
}

int run_list_take(struct run_list *l, const char *ref, struct run_entry *out, struct error *err)
{
    bool several;
    size_t i = ref[0] ? find(l, ref, &several) : l->count;

    if (i == l->count) {
        error_set(err, ERR_NOT_FOUND, "%.80s: no such run", ref);
        return error_hint(err, "capsule-cli ps -a lists them");
    }
    if (several)
        return error_set(err, ERR_USAGE, "%.80s: several runs begin like this", ref);
    *out = l->items[i];
    l->items[i] = l->items[--l->count];
    qsort(l->items, l->count, sizeof(*l->items), newest_first);
    return 0;
}

/* ---- changing ---- */

/* Not synced: a record says nothing once the machine has gone down. One process at a time writes.
 */
static int replace_file(const char *path, struct slice bytes, struct error *err)
{
    AUTO_FREE char *temp = xasprintf("%s.new", path);
    AUTO_FD int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_sys(err, errno, "creating %s", temp);
    if (fd_write_all(fd, bytes.ptr, bytes.len, temp, err) < 0 ||
        (rename(temp, path) < 0 && error_sys(err, errno, "renaming %s", temp) < 0)) {
        unlink(temp);
        return -1;
    }
    return 0;
}

int run_place_save(const struct run_place *p, const struct run_record *record, struct error *err)
{
    AUTO_FREE char *path = NULL;
    AUTO_BUF struct buf text = BUF(RUN_RECORD_MAX);

    if (!p->dir)
        return 0;
    path = xasprintf("%s/run.json", p->dir);
    if (run_record_format(record, &text, err) < 0)
        return -1;
    return replace_file(path, buf_slice(&text), err);
}

static int make_place(const char *runs, struct run_record *record, struct run_place *out,
                      struct error *err)
{
    AUTO_FREE char *lock = NULL;
    uint8_t random[RUN_ID_LEN / 2];

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return error_sys(err, errno, "reading random bytes");
    hex_encode(slice_of(random, sizeof(random)), record->id);
    out->dir = xasprintf("%s/%s", runs, record->id);
    lock = xasprintf("%s/lock", out->dir);
    if (mkdir(out->dir, 0700) < 0)
        return error_sys(err, errno, "making directory %s", out->dir);
    out->lock_fd = open(lock, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out->lock_fd < 0)
        return error_sys(err, errno, "creating %s", lock);
    if (flock(out->lock_fd, LOCK_EX) < 0)
        return error_sys(err, errno, "locking %s", lock);
    return 0;
}

static int check_name(const struct run_list *l, const char *name, struct error *err)
{
    for (size_t i = 0; name && name[0] && i < l->count; i++) {
        const struct run_entry *e = &l->items[i];

        if (!run_state_lives(e->state) || strcmp(e->record.name, name) != 0)
            continue;
        error_set(err, ERR_EXISTS, "%s: run %s has this name", name, e->record.id);
        return error_hint(err, "take another name, or stop it: capsule-cli stop %s", name);
    }
    return 0;
}

static size_t count_runs(const char *runs)
{
    DIR *d = opendir(runs);
    struct dirent *e;
    size_t n = 0;

    while (d && (e = readdir(d)) != NULL)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

/* The container of a killed capsule-cli may still run, and the record is the way to it. */
static bool may_forget(const struct run_entry *e)
{
    return e->state == RUN_EXITED || (e->state == RUN_DIED && !e->record.container[0]);
}

static void forget_oldest(struct run_list *l)
{
    size_t kept = 0;
    struct error why = {0};

    for (size_t i = 0; i < l->count; i++)
        if (may_forget(&l->items[i]) && ++kept > RUNS_KEPT - 1 &&
            tree_remove(l->items[i].dir, &why) < 0)
            log_warn("runs", "an old run cannot be forgotten", kv_str("reason", why.msg));
}

int runs_begin(const char *runs, struct run_record *record, struct run_place *out,
               struct error *err)
{
    AUTO_RUN_LIST struct run_list all = {0};
    AUTO_FD int lock = lock_all(runs, err);

    *out = RUN_PLACE_NONE;
    if (lock < 0)
        return -1;
    /* Reading dozens of records takes as long as starting the shell. */
    if ((record->name && record->name[0]) || count_runs(runs) >= RUNS_KEPT + RUNS_SPARE) {
        if (runs_list(runs, &all, err) < 0 || check_name(&all, record->name, err) < 0)
            return -1;
        forget_oldest(&all);
    }
    run_boot_id(record->boot);
    record->started_ms = clock_real_ns() / 1000000;
    run_process_of(getpid(), &record->supervisor);
    if (make_place(runs, record, out, err) == 0 && run_place_save(out, record, err) == 0)
        return 0;
    if (out->dir)
        tree_remove(out->dir, NULL);
    run_place_close(out);
    return -1;
}

/* One directory; 1 when it was removed. */
static int prune_one(char *dir, bool (*keep)(void *arg, const struct run_entry *e), void *arg,
                     struct error *err)
{
    AUTO_RUN_ENTRY struct run_entry e = {.dir = dir};

    if (is_held(dir))
        return 0;
    /* One without a readable record was killed before it had one, or is damaged. */
    if (run_entry_refresh(&e, NULL) == 0 && (run_state_lives(e.state) || (keep && keep(arg, &e))))
        return 0;
    return tree_remove(dir, err) < 0 ? -1 : 1;
}

int runs_prune(const char *runs, bool (*keep)(void *arg, const struct run_entry *e), void *arg,
               size_t *removed, struct error *err)
{
    AUTO_FD int lock = lock_all(runs, err);
    DIR *d = lock < 0 ? NULL : opendir(runs);
    struct dirent *e;
    int rc = 0;

    if (lock < 0)
        return -1;
    if (!d)
        return error_sys(err, errno, "opening %s", runs);
    while (rc >= 0 && (e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        rc = prune_one(xasprintf("%s/%s", runs, e->d_name), keep, arg, err);
        *removed += rc > 0;
    }
    closedir(d);
    return rc < 0 ? -1 : 0;
}
