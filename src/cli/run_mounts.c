#include "cli/run_mounts.h"

#include "base/log.h"
#include "base/strv.h"
#include "base/text.h"
#include "host/mounts.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

#define COMPONENT "mount"

/* ---- the command line ---- */

/* A copy without the blanks at both ends. */
static char *trimmed(const char *s, size_t len)
{
    static const char blanks[] = " \t\r\n\v\f";

    while (len > 0 && strchr(blanks, *s)) {
        s++;
        len--;
    }
    while (len > 0 && strchr(blanks, s[len - 1]))
        len--;
    return xstrndup(s, len);
}

static int make_absolute(char **dir, struct error *err)
{
    AUTO_FREE char *cwd = NULL;
    char *path;

    if ((*dir)[0] == '/')
        return 0;
    cwd = getcwd(NULL, 0);
    if (!cwd)
        return error_sys(err, errno, "finding the working directory");
    path = xasprintf("%s/%s", cwd, *dir);
    free(*dir);
    *dir = path;
    return 0;
}

int run_mounts_add(struct run_mounts *m, const char *text, struct error *err)
{
    const char *equals = strchr(text, '=');
    AUTO_FREE char *name = NULL, *dir = NULL;
    char *place;
    bool read_only;

    if (!equals)
        return error_set(err, ERR_USAGE, "--mount %s: is not NAME=DIR", text);
    name = trimmed(text, (size_t)(equals - text));
    place = trimmed(equals + 1, strlen(equals + 1));
    read_only = text_take_suffix(place, ":ro");
    if (!read_only)
        text_take_suffix(place, ":rw");
    dir = trimmed(place, strlen(place));
    free(place);
    if (!name[0] || !dir[0])
        return error_set(err, ERR_USAGE, "--mount %s: %s is empty", text,
                         name[0] ? "the directory" : "the name");
    if (m->count == ARRAY_LEN(m->items))
        return error_set(err, ERR_USAGE, "--mount %s: more than %d mounts", text,
                         MANIFEST_MOUNTS_MAX);
    if (make_absolute(&dir, err) < 0)
        return -1;
    m->items[m->count++] = (struct run_mount){.name = name, .dir = dir, .read_only = read_only};
    name = dir = NULL;
    return 0;
}

/* ---- the manifest ---- */

static const struct manifest_mount *find_entry(const struct manifest *manifest, const char *name)
{
    const struct manifest_mount_list *list = &manifest->storage.mounts;

    for (size_t i = 0; i < list->count; i++)
        if (strcasecmp(list->items[i].name, name) == 0)
            return &list->items[i];
    return NULL;
}

static int unknown_name(const struct manifest *manifest, const char *name, struct error *err)
{
    const struct manifest_mount_list *list = &manifest->storage.mounts;
    AUTO_BUF struct buf names = BUF(sizeof(err->hint) - 64);

    if (list->count == 0)
        return error_set(err, ERR_INVALID, "--mount %s: the manifest has no storage.mounts", name);
    for (size_t i = 0; i < list->count; i++)
        if (buf_printf(&names, "%s%s", i ? ", " : "", list->items[i].name) < 0)
            break;
    error_set(err, ERR_INVALID, "--mount %s: the manifest has no mount of that name", name);
    return error_hint(err, "its storage.mounts are: %s", buf_cstr(&names));
}

static int bind_one(struct run_mounts *m, size_t i, const struct manifest *manifest,
                    struct error *err)
{
    struct run_mount *mount = &m->items[i];
    const struct manifest_mount *entry = find_entry(manifest, mount->name);

    if (!entry)
        return unknown_name(manifest, mount->name, err);
    for (size_t k = 0; k < i; k++)
        if (strcasecmp(m->items[k].name, entry->name) == 0)
            return error_set(err, ERR_INVALID, "--mount %s: given twice", entry->name);
    free(mount->name);
    mount->name = xstrdup(entry->name);
    mount->index = (size_t)(entry - manifest->storage.mounts.items);
    mount->size_mb = entry->size_mb;
    return 0;
}

static bool is_given(const struct run_mounts *m, const char *name)
{
    for (size_t i = 0; i < m->count; i++)
        if (strcmp(m->items[i].name, name) == 0)
            return true;
    return false;
}

static int check_missing(const struct run_mounts *m, const struct manifest *manifest,
                         struct error *err)
{
    const struct manifest_mount_list *list = &manifest->storage.mounts;

    for (size_t i = 0; i < list->count; i++) {
        const struct manifest_mount *entry = &list->items[i];

        if (is_given(m, entry->name))
            continue;
        if (entry->required) {
            error_set(err, ERR_INVALID, "the host mount %s is required and was not given",
                      entry->name);
            return error_hint(err, "add --mount %s=DIR, DIR being where its data is kept",
                              entry->name);
        }
        log_info(COMPONENT, "optional and not given: the app runs without it",
                 kv_str("name", entry->name), kv_str("path", entry->mount_path));
    }
    return 0;
}

static int by_index(const void *a, const void *b)
{
    size_t x = ((const struct run_mount *)a)->index, y = ((const struct run_mount *)b)->index;

    return (x > y) - (x < y);
}

int run_mounts_bind(struct run_mounts *m, const struct manifest *manifest, struct error *err)
{
    for (size_t i = 0; i < m->count; i++)
        if (bind_one(m, i, manifest, err) < 0)
            return -1;
    qsort(m->items, m->count, sizeof(m->items[0]), by_index);
    return check_missing(m, manifest, err);
}

/* ---- the state directories ---- */

static int prepare_one(struct run_mounts *m, size_t i, struct error *err)
{
    struct run_mount *mount = &m->items[i];

    if (state_dir_open(mount->dir, true, &mount->state, err) < 0)
        return -1;
    for (size_t k = 0; k < i; k++)
        if (state_dir_same(m->items[k].state, mount->state))
            return error_set(err, ERR_INVALID, "%s is the directory of %s already", mount->dir,
                             m->items[k].name);
    return state_dir_prepare(mount->state, mount->size_mb, mount->read_only, err);
}

int run_mounts_prepare(struct run_mounts *m, struct error *err)
{
    for (size_t i = 0; i < m->count; i++)
        if (prepare_one(m, i, err) < 0) {
            error_wrap(err, "preparing the host mount %s", m->items[i].name);
            run_mounts_release(m, NULL);
            return -1;
        }
    return 0;
}

void run_mounts_args(const struct run_mounts *m, char ***args)
{
    for (size_t i = 0; i < m->count; i++) {
        AUTO_FREE char *value =
            xasprintf("%s=%s%s", m->items[i].name, state_dir_served(m->items[i].state),
                      m->items[i].read_only ? ":ro" : "");

        strv_add(args, "--mount");
        strv_add(args, value);
    }
}

size_t run_mounts_binds(const struct run_mounts *m,
                        struct container_bind binds[MANIFEST_MOUNTS_MAX], char ***targets)
{
    size_t n = 0;

    for (size_t i = 0; i < m->count; i++) {
        AUTO_FREE char *target = xasprintf(MOUNTS_DEFAULT_DIR "/%s", m->items[i].name);

        if (!m->items[i].state)
            continue;
        strv_add(targets, target);
        binds[n] = (struct container_bind){.source = state_dir_served(m->items[i].state),
                                           .target = (*targets)[n],
                                           .read_only = m->items[i].read_only};
        n++;
    }
    return n;
}

int run_mounts_check_seen(const struct run_mounts *m, const struct container_engine *e,
                          struct error *err)
{
    pid_t pid = container_engine_pid(e);

    for (size_t i = 0; i < m->count; i++) {
        if (state_dir_seen_by(m->items[i].state, pid))
            continue;
        error_set(err, ERR_UNSUPPORTED,
                  "the engine at %s does not see the host mount %s, which is mounted here",
                  e->socket, m->items[i].name);
        return error_hint(err, "run capsule-cli where the engine runs: in no container, and in no "
                               "service that has mounts of its own (PrivateTmp=, ProtectSystem=)");
    }
    return 0;
}

size_t run_mounts_locks(const struct run_mounts *m, int fds[MANIFEST_MOUNTS_MAX])
{
    for (size_t i = 0; i < m->count; i++)
        fds[i] = state_dir_lock_fd(m->items[i].state);
    return m->count;
}

int run_mounts_release(struct run_mounts *m, struct error *err)
{
    int rc = 0;

    for (size_t i = m->count; i-- > 0;) {
        struct run_mount *mount = &m->items[i];
        struct error why = {0};

        if (!mount->state)
            continue;
        if (state_dir_release(mount->state, &why) < 0) {
            error_wrap(&why, "releasing the host mount %s", mount->name);
            if (rc == 0 && err)
                *err = why;
            else
                log_error(COMPONENT, why.msg);
            rc = -1;
        }
        state_dir_close(mount->state);
        mount->state = NULL;
    }
    return rc;
}

void run_mounts_free(struct run_mounts *m)
{
    run_mounts_release(m, NULL);
    for (size_t i = 0; i < m->count; i++) {
        free(m->items[i].name);
        free(m->items[i].dir);
    }
    m->count = 0;
}
