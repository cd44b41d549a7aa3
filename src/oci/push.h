/*
 * Images into registries (OCI distribution-spec, "Push"): blobs that are not there yet, several at
 * a time, then the manifest, so that a name never leads to half of an image.
 */
#ifndef CAPSULE_OCI_PUSH_H
#define CAPSULE_OCI_PUSH_H

#include "oci/content.h"
#include "oci/image.h"

/*
 * Pushes an image as [HOST[:PORT]/]NAME[:TAG][@DIGEST], which names a place as it does in
 * registry_load(). All digests of `image` are set. With a tag the manifest goes there, else it is
 * known by its digest alone; a DIGEST that is not the manifest's is ERR_INVALID before anything is
 * sent. Blobs that the registry has are not sent again, and those whose `source` is a repository of
 * the same registry are mounted where it agrees. Of `options` the parts about registries count.
 *
 * ERR_DENIED: the login may not push; ERR_NET: the registry fails, or does not keep the protocol;
 * ERR_INVALID: it says that it stored other bytes than these.
 */
int registry_push(const char *where, const struct content_image *image,
                  const struct image_options *options, struct error *err);

/*
 * Pushes an artifact whose manifest has a `subject`, which the repository holds, by digest; a tag
 * in `where` has no meaning. A registry that does not keep a list of referrers gets it as an index
 * under the tag "sha256-HEX" of the subject (distribution-spec, "Pushing Manifests with Subject"):
 * two who add to it at once are told apart by reading it again.
 */
int registry_push_referrer(const char *where, const struct content_image *artifact,
                           const struct image_options *options, struct error *err);

/* Largest index of referrers that is extended. */
#define REFERRERS_MAX BLOB_JSON_MAX

#endif
