/*
 * The host mounts of one `capsule-cli run`: from --mount NAME=DIR[:ro] and the manifest to mounted
 * state directories, and back (spec/cli-and-build.md section 6). In order: add each, bind, prepare,
 * release.
 */
#ifndef CAPSULE_CLI_RUN_MOUNTS_H
#define CAPSULE_CLI_RUN_MOUNTS_H

#include "container/spec.h"
#include "host/state_dir.h"
#include "manifest/manifest.h"

struct run_mount {
    char *name; /* as the user wrote it; once bound, as the manifest does */
    char *dir;  /* absolute */
    bool read_only;
    size_t index; /* in storage.mounts, once bound */
    uint64_t size_mb;
    struct state_dir *state; /* while prepared */
};

/* Zero-initialise. */
struct run_mounts {
    struct run_mount items[MANIFEST_MOUNTS_MAX];
    size_t count;
};

/*
 * Takes one value of --mount: NAME=DIR or NAME=DIR:ro, split at the first "=", blanks around both
 * dropped; :rw, as users of containers may write it, says what holds anyway. A relative DIR belongs
 * to the working directory of now. ERR_USAGE.
 */
int run_mounts_add(struct run_mounts *m, const char *text, struct error *err);
/*
 * Holds them against the manifest, whose names match in any case: each must be there, once, and
 * every required mount must be given; an optional one that is not gets a log line. Brings them into
 * the manifest's order. ERR_INVALID.
 */
int run_mounts_bind(struct run_mounts *m, const struct manifest *manifest, struct error *err);
/*
 * Prepares all state directories, in order; what was prepared is released when one fails. Two
 * mounts in one directory are ERR_INVALID.
 */
int run_mounts_prepare(struct run_mounts *m, struct error *err);
/* Adds "--mount", "NAME=PATH[:ro]" for each prepared one to a list as in base/strv.h. */
void run_mounts_args(const struct run_mounts *m, char ***args);
/*
 * Adds a bind for each prepared one, to where capsule-shell finds it in a container. The texts are
 * borrowed until the mounts are released; `targets` is an empty list as in base/strv.h, which the
 * caller owns. Returns how many.
 */
size_t run_mounts_binds(const struct run_mounts *m,
                        struct container_bind binds[MANIFEST_MOUNTS_MAX], char ***targets);
/*
 * Whether the prepared ones are mounted for a container engine as well: for one in another mount
 * namespace their directories are empty, and what an app writes there would miss the image.
 */
int run_mounts_check_seen(const struct run_mounts *m, const struct container_engine *e,
                          struct error *err);
/* The descriptors of their locks, for the process that serves them to inherit. Returns how many. */
size_t run_mounts_locks(const struct run_mounts *m, int fds[MANIFEST_MOUNTS_MAX]);
/* Releases in reverse order; the first error is in *err, the rest is done all the same. */
int run_mounts_release(struct run_mounts *m, struct error *err);
/* Releases, if need be, and frees. */
void run_mounts_free(struct run_mounts *m);

#endif
