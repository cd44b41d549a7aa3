/* What stands beside a `dir:` root. */
#ifndef CAPSULE_OCI_DIR_H
#define CAPSULE_OCI_DIR_H

#include "base/error.h"
#include "base/slice.h"

/*
 * Reads ROOTFS.json, the image configuration of the root file system at `root` (slashes at its end
 * do not count), into `out`. Returns the file's path, for messages, which the caller frees; NULL
 * with err.
 */
char *dir_config_read(const char *root, struct buf *out, struct error *err);

#endif
