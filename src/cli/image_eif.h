/* The EIF of an image, wherever the image is. */
#ifndef CAPSULE_CLI_IMAGE_EIF_H
#define CAPSULE_CLI_IMAGE_EIF_H

#include "eif/eif.h"
#include "oci/image.h"

/* True for FILE.eif and for paths ("/..." and "./..."); anything else is the name of an image. */
bool image_eif_is_file(const char *operand);

/*
 * Computes the measurements of an image from its EIF, whatever its labels say: of a file as above,
 * of an image of the local store, else of a release image that image_load() finds, whose
 * /enclave/application.eif counts. Every fault of the EIF is an error.
 */
int image_eif_measure(const char *operand, const struct image_options *options,
                      struct eif_measurements *out, struct error *err);

#endif
