/* `docker://REFERENCE` as the target: blobs first, the manifest last. */
#include "oci/push.h"

#include "base/log.h"
#include "base/strv.h"
#include "oci/progress.h"
#include "oci/push_priv.h"
#include "oci/registry_hosts.h"

#include <stdio.h>

/* ---- blobs ---- */

static void done(void *arg, const struct fetch *f)
{
    const struct upload *u = f->arg;

    progress_end(arg);
    log_info("image", "pushed", kv_str("what", f->what), kv_uint("bytes", f->size),
             kv_str("how", u->how));
}

int push_blobs(struct registry *r, const struct content_image *image, struct error *err)
{
    size_t max = image->layer_count + 1, count = 0;
    AUTO_FREE struct upload *u = xcalloc(max, sizeof(*u));
    AUTO_FREE struct fetch *f = xcalloc(max, sizeof(*f));
    struct progress shown = {0};
    const struct fetch_progress progress = {progress_show_fetches, done, &shown};
    int rc;

    for (size_t i = 0; i < max; i++) {
        const struct content_blob *b = i == 0 ? &image->config : &image->layers[i - 1];
        bool twice = false;

        for (size_t j = 0; j < count; j++)
            twice = twice || digest_equal(&u[j].blob->digest, &b->digest);
        if (twice)
            continue;
        upload_prepare(&u[count], r, b, &f[count]);
        count++;
    }
    rc = fetch_all(r, f, count, &progress, err);
    progress_end(&shown);
    for (size_t i = 0; i < count; i++) {
        fetch_free(&f[i]);
        upload_free(&u[i]);
    }
    return rc;
}

/* ---- the manifest ---- */

struct put {
    const struct content_blob *manifest;
    char *subject;
};

static enum fetch_next answered(struct fetch *f, const struct fetch_answer *a, struct error *err)
{
    struct put *p = f->arg;

    if (a->status != 201)
        return FETCH_REFUSED;
    if (push_check_digest(a, &p->manifest->digest, err) < 0)
        return FETCH_FAILED;
    p->subject = xstrdup(a->subject ? a->subject : "");
    return FETCH_DONE;
}

/* A manifest is put again just as it was. */
static void interrupted(struct fetch *f)
{
    (void)f;
}

int push_manifest(struct registry *r, const struct content_blob *manifest, const char *which,
                  char **subject, struct error *err)
{
    static const struct fetch_steps steps = {.answered = answered, .interrupted = interrupted};
    struct put p = {.manifest = manifest};
    struct fetch f = {
        .url = registry_url(r, "manifests", which),
        .what = xasprintf("manifest %s", which),
        .steps = &steps,
        .arg = &p,
        .method = "PUT",
        .send = {.content = manifest, .size = manifest->size, .type = manifest->media_type},
        .fd = -1};
    int rc = fetch_all(r, &f, 1, NULL, err);

    fetch_free(&f);
    if (subject)
        *subject = p.subject;
    else
        free(p.subject);
    return rc;
}

/* ---- the whole ---- */

static void add_source(struct registry *r, const struct content_blob *b)
{
    const char *from = upload_source(r, b);

    for (char **name = r->from; from && name && *name; name++)
        if (strcmp(*name, from) == 0)
            return;
    if (from)
        strv_add(&r->from, from);
}

int push_open(const char *where, const struct content_image *image,
              const struct image_options *options, struct reference *ref, struct registry *r,
              struct error *err)
{
    AUTO_FREE char *host = NULL;

    if (reference_parse(slice_str(where), ref, err) < 0)
        return -1;
    host = ref->host ? xstrdup(ref->host) : registry_default_host(err);
    if (!host || registry_open(r, host, ref->name, options, err) < 0)
        return -1;
    r->push = true;
    add_source(r, &image->config);
    for (size_t i = 0; i < image->layer_count; i++)
        add_source(r, &image->layers[i]);
    return 0;
}

static int push(struct registry *r, const struct reference *ref, const struct content_image *image,
                struct error *err)
{
    char text[DIGEST_TEXT_MAX];
    const char *which = digest_text(&image->manifest.digest, text);

    if (ref->pinned && !digest_equal(&ref->digest, &image->manifest.digest))
        return error_set(err, ERR_INVALID, "the image is %s, which is not the digest in its name",
                         which);
    log_info("image", "pushing", kv_str("to", r->host), kv_str("name", r->name),
             kv_str("digest", which));
    if (push_blobs(r, image, err) < 0)
        return -1;
    return push_manifest(r, &image->manifest, ref->tag ? ref->tag : which, NULL, err);
}

int registry_push(const char *where, const struct content_image *image,
                  const struct image_options *options, struct error *err)
{
    AUTO_REFERENCE struct reference ref = {0};
    AUTO_REGISTRY struct registry r = {0};

    if (push_open(where, image, options, &ref, &r, err) < 0 || push(&r, &ref, image, err) < 0)
        return error_wrap(err, "pushing to %s", where);
    return 0;
}
