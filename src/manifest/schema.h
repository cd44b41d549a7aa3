/*
 * The schema table: every key of the manifest, once. Parsing, defaults, validation, the JSON
 * Schema, the effective values and freeing all walk it. To add a key: a member in manifest.h and a
 * row in schema.c (and a line in docs/manifest.md; a test compares).
 */
#ifndef CAPSULE_MANIFEST_SCHEMA_H
#define CAPSULE_MANIFEST_SCHEMA_H

#include "manifest/manifest.h"

struct loader;

enum schema_type {
    /* type in the file        type of the struct member */
    SCHEMA_STRING,  /* any scalar, literally      char *, owned */
    SCHEMA_BOOL,    /* true or false              bool */
    SCHEMA_U16,     /* whole number               uint16_t */
    SCHEMA_I32,     /*                            int32_t, never negative here */
    SCHEMA_U32,     /*                            uint32_t */
    SCHEMA_U64,     /*                            uint64_t */
    SCHEMA_ENUM,    /* one of `choices`           an enum */
    SCHEMA_MAP,     /* mapping                    struct whose first member is bool present */
    SCHEMA_LIST,    /* list of mappings           struct { X *items; size_t count; } */
    SCHEMA_STRINGS, /* list of strings            struct manifest_strings */
};

struct schema_choice {
    const char *name; /* NULL ends the list */
    int value;
};

struct schema_field {
    const char *key;
    enum schema_type type;
    bool required;
    bool implied;        /* MAP: in effect, with its defaults, when the author leaves it out */
    bool empty_is_ok;    /* required STRING: may be blank */
    bool zero_is_absent; /* number without default: 0 in the struct says that there is none */
    size_t offset;       /* of the member in the struct of the enclosing mapping */

    uint64_t min, max;         /* numbers: inclusive bounds; lists: most entries, 0 for no limit */
    uint64_t fallback;         /* default of BOOL, number and ENUM */
    const char *fallback_text; /* default of STRING */
    const struct schema_choice *choices; /* ENUM */
    const struct schema_object *object;  /* MAP, LIST: what an entry looks like */

    /*
     * Checks one value (for STRINGS each entry, as char **) beyond its type and may normalise it
     * in place. Problems go to loader_error() and loader_warn(). May be NULL.
     */
    void (*check)(struct loader *l, void *value);
    const char *pattern; /* STRING, STRINGS: what `check` wants, roughly, for the JSON Schema */
    const char *about;   /* what it means, without a final full stop */
};

struct schema_object {
    size_t size; /* of the struct */
    const struct schema_field *fields;
    size_t count; /* at most SCHEMA_FIELDS_MAX */
};
#define SCHEMA_FIELDS_MAX 24

/* The whole manifest: struct manifest. */
extern const struct schema_object schema_root;

/* How SCHEMA_LIST and SCHEMA_STRINGS members look to code that walks the table. */
struct schema_list {
    void *items;
    size_t count;
};

/* Size of one entry of a list. */
size_t schema_entry_size(const struct schema_field *f);
/* Fills a zeroed struct with its defaults, inner mappings included. */
void schema_set_defaults(const struct schema_object *o, void *base);
/* Frees what the struct owns, not the struct. */
void schema_free(const struct schema_object *o, void *base);
/* Reads and writes number members (BOOL and ENUM included) of any width. */
uint64_t schema_get_number(const struct schema_field *f, const void *base);
void schema_set_number(const struct schema_field *f, void *base, uint64_t value);
/* Name of an enum value, NULL when it stands for "absent". */
const char *schema_choice_name(const struct schema_field *f, int value);

#endif
