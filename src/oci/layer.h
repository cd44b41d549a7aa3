/*
 * Applying an image layer to a tree: tar entries and whiteouts by the rules of the OCI image
 * specification, "Filesystem Changesets".
 */
#ifndef CAPSULE_OCI_LAYER_H
#define CAPSULE_OCI_LAYER_H

#include "oci/blob.h"
#include "oci/tree.h"

/*
 * Applies one layer (tar: plain, gzip or zstd) on top of what the tree holds. `want` is the digest
 * of the blob as it lies there, `diff_id` that of the tar inside; either may be NULL. `max` bounds
 * the uncompressed bytes (0: the default of unpack.h). After an error the tree holds a part of the
 * layer and is good for nothing but tree_free().
 */
int layer_apply(struct tree *t, const struct blob *blob, const struct digest *want,
                const struct digest *diff_id, uint64_t max, struct error *err);

#endif
