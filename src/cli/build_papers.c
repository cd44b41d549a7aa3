#include "cli/build_papers.h"

#include "base/log.h"
#include "config.h"
#include "oci/content.h"
#include "oci/sbom.h"

#include <fcntl.h>
#include <stdio.h>

#define SOURCES_MAX 8
#define PCRS_MAX    4

static void paper_free(struct build_paper *p)
{
    /* Never opened is all zeros. */
    if (p->path)
        atomic_file_drop(&p->file);
    buf_free(&p->text);
}

void build_papers_free(struct build_papers *p)
{
    paper_free(&p->sbom);
    paper_free(&p->provenance);
}

static int paper_open(struct build_paper *p, const char *path, size_t max, struct error *err)
{
    *p = (struct build_paper){.path = path, .file = ATOMIC_FILE_NONE, .text = BUF(max)};
    return path ? atomic_file_open(&p->file, path, 0644, err) : 0;
}

int build_papers_open(struct build_papers *p, const char *sbom, const char *provenance,
                      struct error *err)
{
    if (paper_open(&p->sbom, sbom, SBOM_MAX, err) < 0)
        return -1;
    return paper_open(&p->provenance, provenance, PROVENANCE_MAX, err);
}

int build_papers_list(struct build_papers *p, const struct image *im, const char *name,
                      int64_t created, struct error *err)
{
    AUTO_PACKAGE_LIST struct package_list packages = {0};
    const struct sbom_input in = {.name = name,
                                  .image = im,
                                  .packages = &packages,
                                  .tool_version = CAPSULE_VERSION,
                                  .created = created};

    if (!p->sbom.path)
        return 0;
    if (packages_read(im->tree, &packages, err) < 0)
        return -1;
    if (packages.has_rpm)
        log_warn("build", "the image has rpm packages, which this version does not list");
    else if (packages.count == 0)
        log_warn("build", "the image has no package database: its bill of materials is empty");
    log_debug("build", "packages", kv_uint("count", packages.count));
    return sbom_write(&in, &p->sbom.text, err);
}

/* ---- provenance ---- */

struct sources {
    struct provenance_thing items[SOURCES_MAX];
    size_t count;
};

static struct provenance_thing *add(struct sources *s, const char *name)
{
    if (s->count == SOURCES_MAX)
        abort();
    s->items[s->count] = (struct provenance_thing){.name = name};
    return &s->items[s->count++];
}

static int add_file(struct sources *s, const char *name, const char *path, struct error *err)
{
    AUTO_BLOB struct blob b = BLOB_NONE;
    struct content_blob all = {0};
    struct provenance_thing *t;

    if (!path)
        return 0;
    if (blob_open_at(AT_FDCWD, path, path, &b, err) < 0)
        return -1;
    content_add_file(&all, b.fd, b.offset, b.size);
    if (content_measure(&all, err) < 0)
        return -1;
    t = add(s, name);
    t->digest = all.digest;
    t->has_digest = true;
    return 0;
}

/* The app's image: what the registry has under its name when that is known, and what is in it. */
static int add_image(struct sources *s, const struct build_facts *f, struct error *err)
{
    const char *at = f->image->repo_digest ? strchr(f->image->repo_digest, '@') : NULL;
    struct provenance_thing *t = add(s, "app");

    t->uri = f->app;
    if (at) {
        if (digest_parse(slice_str(at + 1), &t->digest, err) < 0)
            return -1;
        t->has_digest = true;
        t = add(s, "app configuration");
    }
    t->digest = f->image->id;
    t->has_digest = f->image->has_id;
    return 0;
}

static int add_sources(struct sources *s, const struct build_facts *f, struct error *err)
{
    struct provenance_thing *t;

    if (add_image(s, f, err) < 0)
        return -1;
    t = add(s, "capsule.yaml");
    t->digest = (struct digest){.alg = HASH_SHA256};
    hash_once(HASH_SHA256, f->manifest, t->digest.bytes);
    t->has_digest = true;
    if (add_file(s, "kernel", f->kernel, err) < 0 || add_file(s, "init", f->init, err) < 0 ||
        add_file(s, "capsule-runtime", f->runtime, err) < 0 ||
        add_file(s, "nsm-module", f->nsm_module, err) < 0)
        return error_wrap(err, "provenance");
    return 0;
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

int build_papers_prove(struct build_papers *p, const struct build_facts *f, struct error *err)
{
    const struct provenance_setting settings[] = {
        {"target", f->name},
        {"rootFormat", f->root_format},
        {"cmdline", f->cmdline},
        {"dropCapabilities", f->drop_capabilities ? "true" : NULL},
    };
    struct provenance_thing pcrs[PCRS_MAX];
    struct sources sources = {0};
    struct provenance_input in = {
        .subject = {.name = f->name, .digest = *f->digest, .has_digest = true},
        .settings = settings,
        .setting_count = ARRAY_LEN(settings),
        .sources = sources.items,
        .byproducts = pcrs,
        .tool_version = CAPSULE_VERSION,
    };

    if (!p->provenance.path)
        return 0;
    if (add_sources(&sources, f, err) < 0)
        return -1;
    in.source_count = sources.count;
    in.byproduct_count = list_pcrs(f->pcrs, pcrs);
    return provenance_write(&in, &p->provenance.text, err);
}

/* ---- files ---- */

static int paper_save(struct build_paper *p, struct error *err)
{
    if (!p->path)
        return 0;
    if (fd_write_all(p->file.fd, p->text.ptr, p->text.len, p->path, err) < 0)
        return -1;
    return atomic_file_commit(&p->file, err);
}

int build_papers_save(struct build_papers *p, struct error *err)
{
    return paper_save(&p->sbom, err) < 0 || paper_save(&p->provenance, err) < 0 ? -1 : 0;
}
