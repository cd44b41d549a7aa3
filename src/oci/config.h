/* The configuration of an image (OCI image-spec config.md; Docker's schema 2 is the same). */
#ifndef CAPSULE_OCI_CONFIG_H
#define CAPSULE_OCI_CONFIG_H

#include "codec/launch.h"
#include "oci/blob.h"

#define CONFIG_LAYERS_MAX 1024

struct image_config {
    char *architecture; /* NULL when not told */
    char *os;
    struct digest *diff_ids; /* lowest layer first */
    size_t diff_id_count;
    /* the `config` object; lists are NULL-terminated and may be NULL */
    char **entrypoint;
    char **cmd;
    char **env;
    char *workdir; /* "" when not told */
    char *user;    /* "" when not told */
    /* parts without effect in an enclave, which are worth a word */
    char **exposed_ports;
    char **volumes;
    char *stop_signal;
    bool healthcheck;
};

void image_config_free(struct image_config *c);
/* Parses a whole image configuration; unknown keys are ignored, as the specification says. */
int image_config_parse(struct slice json, const char *name, struct image_config *out,
                       struct error *err);
/* Parses the `config` object alone: what stands beside a `dir:` root. */
int image_config_parse_object(struct slice json, const char *name, struct image_config *out,
                              struct error *err);

/* ---- JSON of manifests, shared by the transports ---- */

typedef struct json_t json_t;
/* A document of at most BLOB_JSON_MAX bytes, duplicate keys refused. The caller json_decref()s. */
json_t *oci_json_parse(struct slice text, const char *name, struct error *err);
/* Value of a string member, or NULL. */
const char *oci_json_str(const json_t *object, const char *key);

#endif
