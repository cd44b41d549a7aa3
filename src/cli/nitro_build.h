/*
 * `build --eif-builder nitro-cli`: AWS's own converter, in a container of the engine that has the
 * app image (spec/cli-and-build.md section 3.3).
 */
#ifndef CAPSULE_CLI_NITRO_BUILD_H
#define CAPSULE_CLI_NITRO_BUILD_H

#include "codec/launch.h"
#include "eif/eif.h"
#include "oci/blob.h"

struct eif_signer;

#define NITRO_BUILD_LABEL "capsule.build"  /* on all that is made in an engine; the build's UUID */
#define NITRO_BUILD_DIR   "capsule-build-" /* and the UUID: the build directory's name */

/* Everything is borrowed for the call. */
struct nitro_build {
    const char *builder; /* image with nitro-cli and its blobs */
    /*
     * Told which image that is before it runs: its ID, and HOST/NAME@DIGEST where a registry is
     * known to have it, else NULL. -1 with err ends the build.
     */
    int (*found)(void *arg, const struct digest *id, const char *repo_digest, struct error *err);
    void *found_arg;
    bool pull;           /* the builder, even when the engine has it */
    const char *app;     /* ID of the app image: 64 hex digits, or "" where it has none */
    const char *runtime; /* path of capsule-runtime */
    const struct launch *launch;
    struct slice manifest;
    const struct eif_signer *signer; /* signs here, so that the key meets no container; or NULL */
};

/*
 * Writes the EIF to `fd`, an empty file named `name` in messages, and checks it against what
 * nitro-cli printed. Whatever happens, a signal included, nothing of it stays behind in the engine
 * or on the disk; all that it makes there has the label capsule.build. After SIGINT and SIGTERM
 * this process ends by them.
 */
int nitro_build_eif(const struct nitro_build *in, int fd, const char *name,
                    struct eif_measurements *out, struct error *err);

#endif
