#include "cli/build_lock.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>

#define LOCK_FILE "capsule.lock"

void build_lock_free(struct build_lock *l)
{
    free(l->path);
    buf_free(&l->text);
    lock_free(&l->old);
    lock_free(&l->new);
}

int build_lock_open(struct build_lock *l, enum lock_mode mode, const char *file,
                    const struct manifest *m, struct error *err)
{
    struct error why = {0};

    *l = (struct build_lock){.mode = mode, .dir = m->dir, .text = BUF(LOCK_TEXT_MAX)};
    if (strcmp(file, "-") == 0) {
        if (mode != LOCK_RENEW)
            return 0;
        error_set(err, ERR_USAGE, "--lock: a manifest from standard input has no place for a lock");
        return error_hint(err, "name the manifest with -f FILE");
    }
    l->path = xasprintf("%s/" LOCK_FILE, m->dir);
    if (file_read(l->path, &l->text, &why) < 0) {
        if (why.sys == ENOENT || (why.kind == ERR_LIMIT && mode == LOCK_RENEW))
            return 0;
        error_set(err, why.kind, "%s", why.msg);
        return why.kind == ERR_LIMIT ? error_hint(err, "write it anew with build --lock") : -1;
    }
    l->found = true;
    if (mode == LOCK_RENEW)
        return 0;
    if (lock_parse(buf_slice(&l->text), &l->old, err) < 0) {
        error_wrap(err, "%s", l->path);
        return error_hint(err, "write it anew with build --lock");
    }
    return 0;
}

/* The reference as it means the same on every machine: paths below the manifest are relative. */
static char *portable(const struct build_lock *l, const char *reference)
{
    const char *colon = strchr(reference, ':'), *where;
    size_t len = strlen(l->dir);

    if (image_in_registry(reference, &where) || !colon || strncmp(colon + 1, l->dir, len) != 0 ||
        colon[1 + len] != '/')
        return xstrdup(reference);
    return xasprintf("%.*s%s", (int)(colon + 1 - reference), reference, colon + 2 + len);
}

static int stale(const struct build_lock *l, const char *name, const struct lock_entry *e,
                 struct error *err)
{
    if (e)
        error_set(err, ERR_INVALID,
                  "sources.%s: the manifest has changed since %s was written for %.200s", name,
                  l->path, e->reference);
    else
        error_set(err, ERR_INVALID, "sources.%s: %s does not have it", name, l->path);
    return error_hint(err, "renew the lock with build --lock");
}

char *build_lock_reference(const struct build_lock *l, const char *name, const char *reference,
                           struct error *err)
{
    AUTO_FREE char *written = portable(l, reference);
    const struct lock_entry *e = lock_find(&l->old, name);

    if (l->mode == LOCK_RENEW)
        return xstrdup(reference);
    if (l->found) {
        if (e && strcmp(e->reference, written) == 0)
            return lock_pin(e, reference);
        stale(l, name, e, err);
        return NULL;
    }
    if (l->mode == LOCK_REQUIRE && !lock_is_pinned(reference)) {
        error_set(err, ERR_DENIED, "sources.%s: %.300s is not pinned, and --locked was given", name,
                  written);
        error_hint(err, "write capsule.lock with build --lock, or the digest behind the name");
        return NULL;
    }
    return xstrdup(reference);
}

int build_lock_take(struct build_lock *l, const char *name, const char *reference,
                    const struct digest *image, const char *repo_digest, struct error *err)
{
    AUTO_FREE char *written = portable(l, reference);
    const struct lock_entry *e = lock_find(&l->old, name);
    int rc = 0;

    if (l->mode == LOCK_RENEW)
        rc = lock_add(&l->new, name, written, image, repo_digest, err);
    else if (e)
        rc = lock_check(e, image, err);
    return rc < 0 ? error_wrap(err, "sources.%s: %.300s", name, written) : 0;
}

int build_lock_save(const struct build_lock *l, struct error *err)
{
    AUTO_BUF struct buf text = BUF(LOCK_TEXT_MAX);

    if (l->mode != LOCK_RENEW)
        return 0;
    if (lock_write(&l->new, &text, err) < 0)
        return -1;
    if (l->found && slice_equal(buf_slice(&text), buf_slice(&l->text)))
        return 0;
    if (file_write_atomic(l->path, buf_slice(&text), 0644, err) < 0)
        return -1;
    log_info("build", "locked", kv_str("file", l->path));
    return 0;
}
