/* Test vectors: JSON files of tests/vectors, found through the environment variable VECTORS. */
#ifndef CAPSULE_TESTS_VECTORS_H
#define CAPSULE_TESTS_VECTORS_H

#include "unit.h"

#include <jansson.h>

/* Loads tests/vectors/NAME; the caller drops the reference. */
static inline json_t *vectors_load(const char *name)
{
    const char *dir = getenv("VECTORS");
    char *path = xasprintf("%s/%s", dir ? dir : "tests/vectors", name);
    json_error_t why;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &why);

    if (!root)
        fail_msg("%s: %s", path, why.text);
    free(path);
    return root;
}

/* The string member `key`, or NULL when it is missing or null. */
static inline const char *vectors_str(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* Bytes of a hex member, with or without 0x, owned by *b. */
static inline struct slice vectors_hex(const json_t *object, const char *key, struct buf *b)
{
    const char *hex = vectors_str(object, key);

    if (!hex)
        fail_msg("vector without %s", key);
    return hex_slice(b, strncmp(hex, "0x", 2) == 0 ? hex + 2 : hex);
}

/* Bytes of a base64 member, owned by *b. */
static inline struct slice vectors_base64(const json_t *object, const char *key, struct buf *b)
{
    const char *text = vectors_str(object, key);

    *b = BUF(1 << 20);
    if (!text || base64_decode(slice_str(text), b) < 0)
        fail_msg("vector without base64 %s", key);
    return buf_slice(b);
}

#endif
