#include "oci/lock.h"

#include "oci/reference.h"

#include <jansson.h>
#include <stdio.h>

#define NAME "capsule.lock"

void lock_free(struct lock *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->entries[i].reference);
    *l = (struct lock){0};
}

const struct lock_entry *lock_find(const struct lock *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->entries[i].name, name) == 0)
            return &l->entries[i];
    return NULL;
}

/* ---- reading ---- */

/* Refuses members that this version does not know: they may mean something. */
static int check_members(const json_t *o, const char *const *known, size_t count, const char *where,
                         struct error *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(o))
        return error_set(err, ERR_INVALID, "%s: must be an object", where);
    json_object_foreach ((json_t *)(uintptr_t)o, key, value) {
        size_t i = 0;

        while (i < count && strcmp(known[i], key) != 0)
            i++;
        if (i == count)
            return error_set(err, ERR_INVALID, "%s: unknown member %.60s", where, key);
    }
    return 0;
}

static int read_digest(const json_t *o, const char *key, struct digest *out, struct error *err)
{
    const char *text = oci_json_str(o, key);

    if (!text)
        return error_set(err, ERR_INVALID, "%s: must be a digest", key);
    if (digest_parse(slice_str(text), out, err) < 0)
        return error_wrap(err, "%s", key);
    return 0;
}

static int read_entry(const char *name, const json_t *o, struct lock *l, struct error *err)
{
    static const char *const known[] = {"reference", "manifest", "image"};
    const char *reference = oci_json_str(o, "reference");
    size_t len = strlen(name);
    struct lock_entry *e;

    if (l->count == LOCK_ENTRIES_MAX)
        return error_set(err, ERR_LIMIT, "more than %d sources", LOCK_ENTRIES_MAX);
    if (len == 0 || len > LOCK_NAME_MAX || strspn(name, "abcdefghijklmnopqrstuvwxyz-") != len)
        return error_set(err, ERR_INVALID, "not the name of a source");
    if (check_members(o, known, ARRAY_LEN(known), "its entry", err) < 0)
        return -1;
    if (!reference || !reference[0] || strlen(reference) > LOCK_REFERENCE_MAX)
        return error_set(err, ERR_INVALID, "reference: must be that of an image");
    e = &l->entries[l->count];
    *e = (struct lock_entry){.has_manifest = json_object_get(o, "manifest") != NULL};
    memcpy(e->name, name, len + 1);
    if ((e->has_manifest && read_digest(o, "manifest", &e->manifest, err) < 0) ||
        read_digest(o, "image", &e->image, err) < 0)
        return -1;
    e->reference = xstrdup(reference);
    l->count++;
    return 0;
}

static int read_top(const json_t *top, struct lock *l, struct error *err)
{
    static const char *const known[] = {"version", "sources"};
    const json_t *version = json_object_get(top, "version");
    json_t *sources = json_object_get(top, "sources"), *value;
    const char *name;

    if (json_is_integer(version) && json_integer_value(version) != 1)
        return error_set(err, ERR_UNSUPPORTED, "version %lld is not known to this capsule-cli",
                         (long long)json_integer_value(version));
    if (check_members(top, known, ARRAY_LEN(known), "the document", err) < 0)
        return -1;
    if (!json_is_integer(version) || !json_is_object(sources))
        return error_set(err, ERR_INVALID, "needs the members version and sources");
    json_object_foreach (sources, name, value) {
        if (read_entry(name, value, l, err) < 0)
            return error_wrap(err, "source %.60s", name);
    }
    return 0;
}

int lock_parse(struct slice text, struct lock *out, struct error *err)
{
    AUTO_LOCK struct lock l = {0};
    json_t *top;
    int rc;

    if (text.len > LOCK_TEXT_MAX)
        return error_set(err, ERR_LIMIT, "more than %zu bytes", LOCK_TEXT_MAX);
    top = oci_json_parse(text, NAME, err);
    rc = top ? read_top(top, &l, err) : -1;
    json_decref(top);
    if (rc < 0)
        return -1;
    *out = l;
    l = (struct lock){0};
    return 0;
}

/* ---- writing ---- */

int lock_write(const struct lock *l, struct buf *out, struct error *err)
{
    json_t *sources = json_object();
    json_t *top = json_pack("{s:i, s:o}", "version", 1, "sources", sources);
    AUTO_FREE char *text = NULL;

    for (size_t i = 0; i < l->count; i++) {
        const struct lock_entry *e = &l->entries[i];
        json_t *o = json_object();
        char digest[DIGEST_TEXT_MAX];

        json_object_set_new(o, "reference", json_string(e->reference));
        if (e->has_manifest)
            json_object_set_new(o, "manifest", json_string(digest_text(&e->manifest, digest)));
        json_object_set_new(o, "image", json_string(digest_text(&e->image, digest)));
        json_object_set_new(sources, e->name, o);
    }
    text = json_dumps(top, JSON_INDENT(2));
    json_decref(top);
    if (!text || buf_printf(out, "%s\n", text) < 0)
        return error_set(err, ERR_LIMIT, NAME ": more than %zu bytes", LOCK_TEXT_MAX);
    return 0;
}

int lock_add(struct lock *l, const char *name, const char *reference, const struct digest *image,
             const char *repo_digest, struct error *err)
{
    const char *at = repo_digest ? strchr(repo_digest, '@') : NULL;
    struct lock_entry *e;

    if (!image) {
        error_set(err, ERR_UNSUPPORTED, "a plain directory has no digest that could be locked");
        return error_hint(err, "make an image of it first, with umoci or docker build");
    }
    if (l->count == LOCK_ENTRIES_MAX || strlen(name) > LOCK_NAME_MAX ||
        strlen(reference) > LOCK_REFERENCE_MAX)
        return error_set(err, ERR_LIMIT, "too many sources, or too long a reference, to lock");
    e = &l->entries[l->count];
    *e = (struct lock_entry){.image = *image, .has_manifest = at != NULL};
    snprintf(e->name, sizeof(e->name), "%s", name);
    if (at && digest_parse(slice_str(at + 1), &e->manifest, err) < 0)
        return -1;
    e->reference = xstrdup(reference);
    l->count++;
    return 0;
}

/* ---- using ---- */

bool lock_is_pinned(const char *reference)
{
    AUTO_REFERENCE struct reference ref = {0};
    const char *where;

    return image_in_registry(reference, &where) &&
           reference_parse(slice_str(where), &ref, NULL) == 0 && ref.pinned;
}

char *lock_pin(const struct lock_entry *e, const char *reference)
{
    char text[DIGEST_TEXT_MAX];
    const char *where;

    if (!e->has_manifest || !image_in_registry(reference, &where) || strchr(where, '@'))
        return xstrdup(reference);
    return xasprintf("%s@%s", reference, digest_text(&e->manifest, text));
}

int lock_check(const struct lock_entry *e, const struct digest *image, struct error *err)
{
    char want[DIGEST_TEXT_MAX], got[DIGEST_TEXT_MAX] = "no image with a digest";

    if (image && digest_equal(&e->image, image))
        return 0;
    if (image)
        digest_text(image, got);
    error_set(err, ERR_INVALID, "it is %s, and " NAME " has %s", got, digest_text(&e->image, want));
    return error_hint(err, "if the new image is meant, renew the lock with build --lock");
}
