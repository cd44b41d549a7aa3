/* Between the readers of package databases. */
#ifndef CAPSULE_OCI_PACKAGES_PRIV_H
#define CAPSULE_OCI_PACKAGES_PRIV_H

#include "oci/packages.h"

void package_free(struct package *p);
/* Replaces a text; an empty one is none. ERR_LIMIT beyond PACKAGES_FIELD_MAX. */
int package_set(char **to, struct slice value, struct error *err);
/* Takes *p over, which is empty then. ERR_INVALID without name or version, ERR_LIMIT if too many.
 */
int package_list_add(struct package_list *l, struct package *p, struct error *err);

/* Reads an rpmdb.sqlite, a private copy of `size` bytes, which is changed by it. */
int packages_read_rpm(int fd, uint64_t size, struct package_list *to, struct error *err);

#endif
