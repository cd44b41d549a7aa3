/*
 * capsule.lock: which images the references of a manifest led to, so that a later build takes the
 * same ones. A JSON document, members and sources in this order:
 *
 *     {"version": 1, "sources": {"app": {"reference": "docker://HOST/NAME:TAG",
 *                                        "manifest": "sha256:...", "image": "sha256:..."}}}
 *
 * `reference` is as the manifest has it; `manifest` what the registry has under that name, an index
 * too, and is absent where no registry was asked; `image` the digest of the configuration, which
 * names all content.
 */
#ifndef CAPSULE_OCI_LOCK_H
#define CAPSULE_OCI_LOCK_H

#include "oci/image.h"

#define LOCK_TEXT_MAX      ((size_t)64 << 10)
#define LOCK_ENTRIES_MAX   8
#define LOCK_NAME_MAX      63 /* lower-case letters and hyphens */
#define LOCK_REFERENCE_MAX 4096

struct lock_entry {
    char name[LOCK_NAME_MAX + 1];
    char *reference;
    bool has_manifest;
    struct digest manifest;
    struct digest image;
};

struct lock {
    struct lock_entry entries[LOCK_ENTRIES_MAX];
    size_t count;
};
void lock_free(struct lock *l);
#define AUTO_LOCK CLEANUP(lock_free)

/* Strict: unknown members and versions are refused. The caller frees *out, untouched on failure. */
int lock_parse(struct slice text, struct lock *out, struct error *err);
/* Appends the document, with a newline at its end; `out` has room for LOCK_TEXT_MAX bytes. */
int lock_write(const struct lock *l, struct buf *out, struct error *err);
/* The entry of a source, or NULL. */
const struct lock_entry *lock_find(const struct lock *l, const char *name);
/*
 * Adds what `reference` of the source `name` led to: `image`, and in registries `repo_digest`
 * (HOST/NAME@DIGEST) or NULL. ERR_UNSUPPORTED without `image`, which plain directories have not.
 */
int lock_add(struct lock *l, const char *name, const char *reference, const struct digest *image,
             const char *repo_digest, struct error *err);

/* True when the reference has a digest, which a registry or an engine is asked for. */
bool lock_is_pinned(const char *reference);
/*
 * What is loaded for `reference`: with the manifest's digest where the entry has one and a
 * registry is meant, else as it is. The caller frees it.
 */
char *lock_pin(const struct lock_entry *e, const char *reference);
/* ERR_INVALID when another image came than the entry says. */
int lock_check(const struct lock_entry *e, const struct digest *image, struct error *err);

#endif
