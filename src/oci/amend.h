/*
 * What turns an app's image into an enclave's root file system and launch description
 * (spec/cli-and-build.md 3.2 and 8.2).
 */
#ifndef CAPSULE_OCI_AMEND_H
#define CAPSULE_OCI_AMEND_H

#include "codec/launch.h"
#include "oci/image.h"

#define AMEND_RUNTIME_PATH  "/sbin/capsule-runtime"
#define AMEND_MANIFEST_PATH "/etc/capsule/capsule.yaml"

struct amend_options {
    int runtime_fd;        /* the static capsule-runtime, a regular file; the caller's */
    struct slice manifest; /* the author's bytes, unchanged */
    const char *cwd;       /* made when the image lacks it, as engines do; NULL: none */
    int64_t mtime;         /* of what is added */
};

/*
 * Adds the runtime (0755 0:0) and the manifest (0644 0:0), through the image's own symbolic links
 * (/sbin -> usr/sbin stays one), and makes sure that /dev, /proc, /sys, /run and /tmp are
 * directories.
 */
int amend_tree(struct tree *t, const struct amend_options *o, struct error *err);
/* Adds one more regular file of root's with the given bytes. */
int amend_add_file(struct tree *t, const char *path, uint32_t mode, int64_t mtime,
                   struct slice bytes, struct error *err);

/*
 * Fills *out (the caller frees it) from the image's configuration: ENTRYPOINT followed by CMD, ENV,
 * WORKDIR and USER. No program at all is ERR_INVALID. Each part that has no effect in an enclave
 * (VOLUME, HEALTHCHECK, STOPSIGNAL, EXPOSE, and USER when `user_is_root` says that the manifest
 * runs the app as root) gives one warning; USER is then left empty.
 */
int amend_launch(const struct image *image, bool user_is_root, struct launch *out,
                 struct error *err);

#endif
