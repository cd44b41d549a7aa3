/*
 * Where images go: the same names of places as image.h has for where they come from.
 *
 *     oci:DIR[:TAG]                an OCI image layout, made when missing; the image takes TAG over
 *     oci-archive:FILE[:TAG]       the same in a tar file, replaced as a whole
 *     docker-archive:FILE[:NAME:TAG]  what `docker load` takes, replaced as a whole
 *     docker-daemon:NAME[:TAG]     the local Docker or podman engine
 *     docker://REFERENCE           a registry
 *
 * A target is either what it was before or holds the whole image; two writers of one target at
 * once are safe. FILE may be a pipe or a device: then the archive is simply written there.
 */
#ifndef CAPSULE_OCI_OUTPUT_H
#define CAPSULE_OCI_OUTPUT_H

#include "oci/content.h"
#include "oci/image.h"

/*
 * What can be said of a destination before there is an image: the grammar (ERR_USAGE), whether it
 * can be written, whether an engine answers.
 */
int image_output_check(const char *destination, struct error *err);
/*
 * Sends the image there. `name`, NAME:TAG, is how it is called where the destination does not say.
 */
int image_output(const char *destination, const struct content_image *image, const char *name,
                 const struct image_options *options, struct error *err);
/* True for places that keep artifacts about an image beside it: registries and layouts. */
bool image_output_takes_referrers(const char *destination);
/* Sends an artifact, whose manifest has a `subject`, to where that image was sent. */
int image_output_referrer(const char *destination, const struct content_image *artifact,
                          const struct image_options *options, struct error *err);
/*
 * To the engine that answers first, as `name`. 1 done; 0 when there is none; -1, also when the one
 * that DOCKER_HOST names does not answer.
 */
int image_output_engine(const struct content_image *image, const char *name, struct error *err);

/* ---- for the outputs ---- */

/* Adds the image to the layout in `dir`, under the tag (NULL: none), which then names it alone. */
int layout_write(const char *dir, const char *tag, const struct content_image *image,
                 struct error *err);
/* Adds an artifact, which has no name there. */
int layout_write_artifact(const char *dir, const struct content_image *artifact, struct error *err);
int layout_check(const char *dir, struct error *err);
/* Loads a docker-archive into an engine, which has to have `name` then. */
struct archive_stream;
struct container_engine;
int engine_send(const struct container_engine *e, struct archive_stream *archive, const char *name,
                struct error *err);

#endif
