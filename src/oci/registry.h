/* Images in registries. */
#ifndef CAPSULE_OCI_REGISTRY_H
#define CAPSULE_OCI_REGISTRY_H

#include "oci/image.h"

/*
 * Pulls [HOST[:PORT]/]NAME[:TAG][@DIGEST] into `out`, whose tree is empty. Without a host the
 * machine's registries.conf decides (registry_hosts.h). As image_load() otherwise.
 */
int registry_load(const char *where, const struct image_options *options, struct image *out,
                  struct error *err);

#endif
