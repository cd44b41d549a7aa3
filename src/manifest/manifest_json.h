/* The manifest and its schema as JSON, for tools. Only capsule-cli needs this. */
#ifndef CAPSULE_MANIFEST_MANIFEST_JSON_H
#define CAPSULE_MANIFEST_MANIFEST_JSON_H

#include "manifest/manifest.h"

#include <jansson.h>

/*
 * The effective values in the shape of the manifest, which is itself a manifest that means the
 * same, plus a member "effective" with what follows from them (spec/manifest.md section 4). Keys
 * that are absent and have no default are left out. The caller owns the reference.
 */
json_t *manifest_effective_json(const struct manifest *m);

/* JSON Schema (draft 2020-12) of the manifest, from the schema table. Owned by the caller. */
json_t *manifest_schema_json(void);

#endif
