/* The metadata section: spec/eif.md section 6. Nothing in it is authenticated. */
#ifndef CAPSULE_EIF_METADATA_H
#define CAPSULE_EIF_METADATA_H

#include "eif/eif.h"

#include <jansson.h>

#define EIF_CUSTOM_METADATA_MAX 4096 /* bytes of the user's JSON, as nitro-cli */

/* What goes in. Strings are borrowed, NULL is "". */
struct eif_metadata {
    const char *image_name;
    const char *image_version;
    int64_t build_time;     /* SOURCE_DATE_EPOCH, else 0: never the current time; clamped to years
                               1970..9999 */
    const char *build_tool; /* NULL: "capsule" */
    const char *build_tool_version;
    const char *operating_system;
    const char *kernel_version;
    struct slice docker_info; /* JSON text made of content digests only; empty: {} */
    struct slice custom;      /* the user's JSON text of any kind; empty: null */
};

/*
 * Appends the section's JSON: compact, keys in the order that nitro-cli expects. The two JSON texts
 * are checked and written anew with their keys in byte order.
 */
int eif_metadata_build(const struct eif_metadata *m, struct buf *out, struct error *err);

/* Reads the metadata of an image: a JSON object of any content, or an error. The caller decrefs. */
json_t *eif_metadata_parse(struct slice text, struct error *err);

#endif
