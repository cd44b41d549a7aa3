/*
 * What `build` tells about a build when asked: a bill of materials, and where it came from. As
 * files and, with --attest, as artifacts about the release image in its registry.
 */
#include "cli/build.h"

#include "base/log.h"
#include "config.h"
#include "oci/artifact.h"
#include "oci/output.h"
#include "oci/provenance.h"
#include "oci/sbom.h"

#include <fcntl.h>
#include <stdio.h>

#define SOURCES_MAX 10
#define PCRS_MAX    4

static void paper_free(struct build_paper *p)
{
    /* Never opened is all zeros. */
    if (p->path)
        atomic_file_drop(&p->file);
    buf_free(&p->text);
}

void build_papers_free(struct build *b)
{
    paper_free(&b->sbom);
    paper_free(&b->provenance);
}

static int paper_open(struct build_paper *p, const char *path, bool wanted, size_t max,
                      struct error *err)
{
    *p = (struct build_paper){
        .path = path, .wanted = wanted || path, .file = ATOMIC_FILE_NONE, .text = BUF(max)};
    return path ? atomic_file_open(&p->file, path, 0644, err) : 0;
}

int build_papers_open(struct build *b, struct error *err)
{
    const struct build_args *a = &b->args;

    if (paper_open(&b->sbom, a->sbom, a->attest, SBOM_MAX, err) < 0)
        return -1;
    return paper_open(&b->provenance, a->provenance, a->attest, PROVENANCE_MAX, err);
}

int build_papers_list(struct build *b, struct error *err)
{
    AUTO_PACKAGE_LIST struct package_list packages = {0};
    const struct sbom_input in = {.name = b->manifest->target,
                                  .image = &b->image,
                                  .packages = &packages,
                                  .tool_version = CAPSULE_VERSION,
                                  .created = b->epoch};

    if (!b->sbom.wanted)
        return 0;
    if (packages_read(b->image.tree, &packages, err) < 0)
        return -1;
    if (packages.rpm_unread)
        log_warn("build",
                 "the bill of materials lacks rpm packages: their database is in a form that is "
                 "not read",
                 kv_str("form", packages.rpm_unread));
    else if (packages.count == 0)
        log_warn("build", "the image has no package database: its bill of materials is empty");
    log_debug("build", "packages", kv_uint("count", packages.count));
    return sbom_write(&in, &b->sbom.text, err);
}

/* ---- provenance ---- */

struct things {
    struct provenance_thing items[SOURCES_MAX];
    size_t count;
};

static struct provenance_thing *add(struct things *s, const char *name)
{
    if (s->count == SOURCES_MAX)
        abort();
    s->items[s->count] = (struct provenance_thing){.name = name};
    return &s->items[s->count++];
}

static void add_digest(struct things *s, const char *name, const struct digest *digest)
{
    struct provenance_thing *t = add(s, name);

    t->digest = *digest;
    t->has_digest = true;
}

static int add_file(struct things *s, const char *name, const char *path, struct error *err)
{
    AUTO_BLOB struct blob b = BLOB_NONE;
    struct digest digest;

    if (!path)
        return 0;
    if (blob_open_at(AT_FDCWD, path, path, &b, err) < 0 ||
        build_digest_file(b.fd, path, &digest, err) < 0)
        return -1;
    add_digest(s, name, &digest);
    return 0;
}

/* An image: what the registry has under its name when that is known, and what is in it. */
static int add_image(struct things *s, const char *name, const char *configuration,
                     const char *reference, const char *repo_digest, const struct digest *id,
                     struct error *err)
{
    const char *at = repo_digest ? strchr(repo_digest, '@') : NULL;
    struct provenance_thing *t = add(s, name);

    t->uri = reference;
    if (at) {
        if (digest_parse(slice_str(at + 1), &t->digest, err) < 0)
            return -1;
        t->has_digest = true;
        t = add(s, configuration);
    }
    t->has_digest = id != NULL;
    if (id)
        t->digest = *id;
    return 0;
}

static int add_sources(struct things *s, const struct build *b, const char *app, const char *shell,
                       struct error *err)
{
    struct digest manifest = {.alg = HASH_SHA256};

    if (add_image(s, "app", "app configuration", app, b->image.repo_digest,
                  b->image.has_id ? &b->image.id : NULL, err) < 0)
        return -1;
    if (!build_is_eif_only(b) && shell &&
        add_image(s, "capsule-shell", "capsule-shell configuration", shell, b->base.repo_digest,
                  &b->base.id, err) < 0)
        return -1;
    hash_once(HASH_SHA256, buf_slice(&b->manifest->source), manifest.bytes);
    add_digest(s, "capsule.yaml", &manifest);
    if (add_file(s, "kernel", b->kernel, err) < 0 || add_file(s, "init", b->init, err) < 0 ||
        add_file(s, "capsule-runtime", b->runtime, err) < 0 ||
        add_file(s, "nsm-module", b->args.nsm_module, err) < 0)
        return -1;
    return build_is_eif_only(b) || shell ? 0 : add_file(s, "capsule-shell", b->shell, err);
}

static size_t list_pcrs(const struct eif_measurements *m, struct provenance_thing out[PCRS_MAX])
{
    static const char *const names[PCRS_MAX] = {"PCR0", "PCR1", "PCR2", "PCR8"};
    const uint8_t *values[PCRS_MAX] = {m->pcr0, m->pcr1, m->pcr2, m->pcr8};
    size_t count = m->has_signature ? PCRS_MAX : PCRS_MAX - 1;

    for (size_t i = 0; i < count; i++) {
        out[i] = (struct provenance_thing){
            .name = names[i], .digest = {.alg = HASH_SHA384}, .has_digest = true};
        memcpy(out[i].digest.bytes, values[i], SHA384_LEN);
    }
    return count;
}

int build_papers_prove(struct build *b, struct error *err)
{
    const struct build_args *a = &b->args;
    const char *base = b->manifest->sources.capsule_shell;
    AUTO_FREE char *app = build_lock_portable(&b->lock, b->manifest->sources.app);
    AUTO_FREE char *shell = base ? build_lock_portable(&b->lock, base) : NULL;
    const struct provenance_setting settings[] = {
        {"target", b->manifest->target},
        {"rootFormat", a->root_format == ROOT_CPIO ? "cpio" : "erofs"},
        {"cmdline", a->cmdline},
        {"dropCapabilities", a->drop_capabilities ? "true" : NULL},
    };
    struct provenance_thing pcrs[PCRS_MAX];
    struct things subjects = {0}, sources = {0};
    struct provenance_input in = {
        .subjects = subjects.items,
        .settings = settings,
        .setting_count = ARRAY_LEN(settings),
        .sources = sources.items,
        .byproducts = pcrs,
        .byproduct_count = list_pcrs(&b->pcrs, pcrs),
        .tool_version = CAPSULE_VERSION,
    };

    if (!b->provenance.wanted)
        return 0;
    if (!build_is_eif_only(b))
        add_digest(&subjects, b->manifest->target, &b->stored.release.digest);
    add_digest(&subjects, "application.eif", &b->eif);
    if (add_sources(&sources, b, app, shell, err) < 0)
        return error_wrap(err, "provenance");
    in.subject_count = subjects.count;
    in.source_count = sources.count;
    return provenance_write(&in, &b->provenance.text, err);
}

/* ---- where they go ---- */

static int attach(const struct build *b, const char *type, const struct buf *text,
                  const char *destination, const struct content_blob *subject, struct error *err)
{
    AUTO_ARTIFACT struct artifact a = {0};

    if (artifact_make(&a, type, buf_slice(text), subject, err) < 0)
        return -1;
    return image_output_referrer(destination, &a.image, &b->options, err);
}

int build_papers_attach(const struct build *b, const char *destination,
                        const struct content_image *image, struct error *err)
{
    if (!b->args.attest || !image_output_takes_referrers(destination))
        return 0;
    if (attach(b, SBOM_MEDIA_TYPE, &b->sbom.text, destination, &image->manifest, err) < 0)
        return -1;
    return attach(b, PROVENANCE_MEDIA_TYPE, &b->provenance.text, destination, &image->manifest,
                  err);
}

static int paper_save(struct build_paper *p, struct error *err)
{
    if (!p->path)
        return 0;
    if (fd_write_all(p->file.fd, p->text.ptr, p->text.len, p->path, err) < 0)
        return -1;
    return atomic_file_commit(&p->file, err);
}

int build_papers_save(struct build *b, struct error *err)
{
    return paper_save(&b->sbom, err) < 0 || paper_save(&b->provenance, err) < 0 ? -1 : 0;
}
