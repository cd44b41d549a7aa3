/* The second half of a build: from the EIF to the release image, and to where it goes. */
#include "cli/build.h"

#include "base/log.h"
#include "base/strv.h"
#include "base/text.h"
#include "cli/parts.h"
#include "config.h"
#include "oci/engine.h"
#include "oci/output.h"

#define LABELS_MAX 10

int build_release_check(struct build *b, struct error *err)
{
    AUTO_CONTAINER_ENGINE struct container_engine e = {0};
    struct error why = {0};
    int rc;

    if (!b->manifest->sources.capsule_shell) {
        b->shell = parts_find(PART_SHELL, err);
        if (!b->shell)
            return -1;
    }
    for (size_t i = 0; i < strv_len(b->args.outputs); i++)
        if (image_output_check(b->args.outputs[i], err) < 0)
            return -1;
    if (b->args.outputs)
        return 0;
    rc = engine_find(&e, &why);
    if (rc < 0)
        log_warn("build", "the release image goes into the local store only",
                 kv_str("because", why.msg));
    b->to_engine = rc == 1;
    return 0;
}

int build_release_base(struct build *b, struct error *err)
{
    const char *name = "capsule-shell", *written = b->manifest->sources.capsule_shell;
    AUTO_FREE char *reference = NULL;

    b->store = store_open(NULL, err);
    if (!b->store)
        return -1;
    if (!written)
        return release_base_make(b->store, b->shell, b->options.arch, b->epoch, &b->base, err);
    reference = build_lock_reference(&b->lock, name, written, err);
    if (!reference)
        return -1;
    if (release_base_load(b->store, reference, &b->options, &b->base, err) < 0)
        return error_wrap(err, "sources.capsule-shell");
    return build_lock_take(&b->lock, name, written, &b->base.id, b->base.repo_digest, err);
}

void build_release_free(struct build *b)
{
    release_base_free(&b->base);
    store_close(b->store);
    free(b->shell);
}

/* ---- what the image says of itself ---- */

struct labels {
    struct release_label items[LABELS_MAX];
    size_t count;
    char pcrs[4][2 * EIF_PCR_LEN + 1];
    char app[DIGEST_TEXT_MAX], shell[DIGEST_TEXT_MAX], eif[DIGEST_TEXT_MAX];
};

static void add(struct labels *l, const char *key, const char *value)
{
    l->items[l->count++] = (struct release_label){key, value};
}

static void fill_labels(const struct build *b, const struct stored_blob *eif, struct labels *l)
{
    static const char *const keys[] = {"capsule.pcr0", "capsule.pcr1", "capsule.pcr2",
                                       "capsule.pcr8"};
    const uint8_t *const pcrs[] = {b->pcrs.pcr0, b->pcrs.pcr1, b->pcrs.pcr2, b->pcrs.pcr8};

    for (size_t i = 0; i < ARRAY_LEN(keys) - !b->pcrs.has_signature; i++) {
        hex_encode(slice_of(pcrs[i], EIF_PCR_LEN), l->pcrs[i]);
        add(l, keys[i], l->pcrs[i]);
    }
    add(l, "org.opencontainers.image.title", b->manifest->name);
    add(l, "capsule.eif", digest_text(&eif->digest, l->eif));
    add(l, "capsule.version", CAPSULE_VERSION);
    if (b->image.has_id)
        add(l, "capsule.source.app", digest_text(&b->image.id, l->app));
    add(l, "capsule.source.capsule-shell", digest_text(&b->base.id, l->shell));
}

/* ---- storing and sending ---- */

static int store_images(struct build *b, struct error *err)
{
    AUTO_STORE_WRITER struct store_writer w = STORE_WRITER_NONE;
    struct labels labels = {0};
    struct release_input in = {
        .base = &b->base,
        .manifest = buf_slice(&b->manifest->source),
        .mtime = b->epoch,
        .labels = labels.items,
    };

    if (store_write(b->store, &w, err) < 0 ||
        build_write_eif(b, w.fd, b->manifest->target, err) < 0 ||
        store_commit(b->store, &w, &in.eif, err) < 0)
        return -1;
    b->eif = in.eif.digest;
    fill_labels(b, &in.eif, &labels);
    in.label_count = labels.count;
    if (release_store(b->store, b->manifest->target, &in, &b->stored, err) < 0)
        return error_wrap(err, "making the release image");
    return store_collect(b->store, NULL, err);
}

static int send(const struct build *b, struct error *err)
{
    AUTO_RELEASE struct release r;
    const char *target = b->manifest->target;
    int rc = release_open(b->store, &b->stored, &r, err);

    for (size_t i = 0; rc == 0 && i < strv_len(b->args.outputs); i++)
        rc = image_output(b->args.outputs[i], &r.image, target, &b->options, err) < 0
                 ? -1
                 : build_papers_attach(b, b->args.outputs[i], &r.image, err);
    if (rc == 0 && b->to_engine)
        rc = image_output_engine(&r.image, target, err) < 0 ? -1 : 0;
    return rc;
}

int build_release(struct build *b, struct error *err)
{
    if (store_images(b, err) < 0 || build_papers_prove(b, err) < 0)
        return -1;
    if (send(b, err) == 0)
        return 0;
    log_warn("build",
             "it is built and in the local store: capsule-cli copy IMAGE DEST sends it again",
             kv_str("image", b->manifest->target));
    return -1;
}
