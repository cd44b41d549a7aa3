/*
 * A tree as one layer: a tar (pax, with long names and file capabilities where there are any, by
 * libarchive), compressed with gzip, in an unnamed file. Entries come in the order of their paths,
 * without names of users, and gzip's head has no time: equal trees give equal bytes with equal
 * versions of libarchive and zlib.
 */
#ifndef CAPSULE_OCI_LAYER_WRITE_H
#define CAPSULE_OCI_LAYER_WRITE_H

#include "oci/blob.h"
#include "oci/tree.h"

/*
 * Writes all of the tree but its root directory, whose mode engines choose. Returns the file, which
 * the caller closes, or -1; *diff_id gets the digest of the tar inside, *size the bytes of the
 * file. Extended attributes but file capabilities are left out (tree_capabilities()).
 */
int layer_write(struct tree *t, struct digest *diff_id, uint64_t *size, struct error *err);

#endif
