/* The steps of `capsule-cli build`, shared by its files. */
#ifndef CAPSULE_CLI_BUILD_H
#define CAPSULE_CLI_BUILD_H

#include "base/file.h"
#include "cli/app_ramdisk.h"
#include "cli/assemble.h"
#include "cli/build_lock.h"
#include "cli/cli.h"
#include "manifest/manifest.h"
#include "oci/release.h"

struct build_args {
    const char *file;
    const char *eif;      /* NULL: into the local store */
    const char *eif_only; /* as eif, with the reference's form of output */
    const char *kernel;
    const char *cmdline;
    const char *init;       /* NULL: ours */
    const char *nsm_module; /* for that */
    enum root_format root_format;
    bool root_format_given;
    bool nitro_cli; /* AWS's converter makes the EIF */
    bool strict;
    bool drop_capabilities;
    bool pull;
    bool insecure;
    char **cacerts; /* strv */
    char **outputs; /* strv; NULL: the engine if one answers */
    enum lock_mode lock;
    const char *sbom, *provenance; /* files; NULL: none */
    bool attest;                   /* both into the registries that the image goes to */
};

/* A text about the build: a file that appears when all is done, and its bytes. */
struct build_paper {
    const char *path; /* NULL: no file */
    bool wanted;
    struct atomic_file file;
    struct buf text;
};

/* What a build has at hand; released as a whole. */
struct build {
    struct build_args args;
    struct manifest *manifest;
    struct build_lock lock;
    struct build_paper sbom, provenance;
    struct image image;
    struct launch launch;
    struct eif_signer *signer;
    char *runtime, *init, *kernel;
    int64_t epoch;
    struct eif_measurements pcrs;
    struct digest eif; /* of the file, when the provenance is to tell it */
    /* Of a build that ends in a release image. */
    char *shell; /* our own; NULL when the manifest names a base */
    bool to_engine;
    struct image_options options;
    struct store *store;
    struct release_base base;
    struct stored_image stored;
};

/* True when the build ends with the EIF, in a file. */
static inline bool build_is_eif_only(const struct build *b)
{
    return b->args.eif || b->args.eif_only;
}

/* Writes the EIF to an empty regular file and fills b->pcrs. */
int build_write_eif(struct build *b, int fd, const char *name, struct error *err);

/* SHA-256 of a whole regular file. */
int build_digest_file(int fd, const char *name, struct digest *out, struct error *err);

/* ---- bill of materials, provenance: build_papers.c ---- */

/* Finds out now whether the files that are wanted can be made. */
int build_papers_open(struct build *b, struct error *err);
/* Lists the packages of the app's image; before it is amended. */
int build_papers_list(struct build *b, struct error *err);
/* Writes down what went in and what came out; when that is there. */
int build_papers_prove(struct build *b, struct error *err);
/* Pushes both as artifacts about `image`, which has been sent to `destination`, where asked for. */
int build_papers_attach(const struct build *b, const char *destination,
                        const struct content_image *image, struct error *err);
int build_papers_save(struct build *b, struct error *err);
void build_papers_free(struct build *b);

/* ---- release images: build_release.c ---- */

/* What can fail before there is an EIF: destinations, the shell, an engine that is not there. */
int build_release_check(struct build *b, struct error *err);
/* Opens the store and takes the base in. */
int build_release_base(struct build *b, struct error *err);
/* Writes EIF and release image into the store, then to every destination. */
int build_release(struct build *b, struct error *err);
void build_release_free(struct build *b);

/* ---- the result: build_result.c ---- */

/* Prints the JSON of spec/cli-and-build.md 1.1. */
int build_print_result(const struct build *b, struct error *err);

#endif
