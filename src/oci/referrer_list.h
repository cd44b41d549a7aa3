/* Which artifacts a registry lists about an image (OCI distribution-spec, "Listing Referrers"). */
#ifndef CAPSULE_OCI_REFERRER_LIST_H
#define CAPSULE_OCI_REFERRER_LIST_H

#include "oci/fetch.h"
#include "oci/manifest.h"

#define REFERRER_PAGES_MAX 16
#define REFERRER_LIST_MAX  1024 /* descriptors in all pages */

/* "sha256-HEX": the tag of the list where a registry keeps none itself. */
void referrer_tag(const struct digest *subject, char out[DIGEST_TEXT_MAX]);

/*
 * The index under `tag`, an empty one when there is none; whether it is right is the caller's to
 * find out. NULL with err.
 */
json_t *referrer_index(struct registry *r, const char *tag, struct error *err);

/*
 * Appends the descriptors of all that the registry lists about `subject`, page by page, to `list`;
 * where it does not know of such lists, those of the index under the tag. ERR_LIMIT when they do
 * not end, ERR_NET when a page leads to another host.
 */
int referrer_list(struct registry *r, const struct digest *subject, json_t *list,
                  struct error *err);

#endif
