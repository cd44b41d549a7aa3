/*
 * How an image came to be: an in-toto Statement (v1) with SLSA provenance (v1).
 */
#ifndef CAPSULE_OCI_PROVENANCE_H
#define CAPSULE_OCI_PROVENANCE_H

#include "oci/blob.h"

#define PROVENANCE_MEDIA_TYPE "application/vnd.in-toto+json"
#define PROVENANCE_TYPE       "https://slsa.dev/provenance/v1"
#define PROVENANCE_BUILD_TYPE "urn:capsule:build:v1"
#define PROVENANCE_BUILDER_ID "urn:capsule:capsule-cli"
#define PROVENANCE_MAX        ((size_t)1 << 20)

/* A thing and its digest, of any kind of hash. */
struct provenance_thing {
    const char *name;
    const char *uri; /* NULL: none */
    struct digest digest;
    bool has_digest;
};

/* One of the settings that the user chose. */
struct provenance_setting {
    const char *name;
    const char *value; /* NULL: left out */
};

/* All borrowed. */
struct provenance_input {
    const struct provenance_thing *subjects; /* what came out */
    size_t subject_count;
    const struct provenance_setting *settings;
    size_t setting_count;
    const struct provenance_thing *sources; /* what went in */
    size_t source_count;
    const struct provenance_thing *byproducts; /* PCRs */
    size_t byproduct_count;
    const char *tool_version;
};

/* Appends the statement; equal inputs give equal bytes. ERR_LIMIT when it does not fit. */
int provenance_write(const struct provenance_input *in, struct buf *out, struct error *err);

#endif
