/* The steps of `capsule-cli build`, shared by its files. */
#ifndef CAPSULE_CLI_BUILD_H
#define CAPSULE_CLI_BUILD_H

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
    bool strict;
    bool drop_capabilities;
    bool pull;
    bool insecure;
    char **cacerts; /* strv */
    char **outputs; /* strv; NULL: the engine if one answers */
    enum lock_mode lock;
};

/* What a build has at hand; released as a whole. */
struct build {
    struct build_args args;
    struct manifest *manifest;
    struct build_lock lock;
    struct image image;
    struct launch launch;
    struct eif_signer *signer;
    char *runtime, *init, *kernel;
    int64_t epoch;
    struct eif_measurements pcrs;
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
