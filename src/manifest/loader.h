/* What the files that load a manifest share: the state of one load, and reporting problems. */
#ifndef CAPSULE_MANIFEST_LOADER_H
#define CAPSULE_MANIFEST_LOADER_H

#include "manifest/manifest.h"
#include "manifest/schema.h"
#include "manifest/yaml.h"

#define SHOWN_SIZE 256 /* see shown() */

struct loader {
    struct manifest *m;
    struct manifest_problems *problems;
    /* the value being read: its key path and place */
    struct buf path;
    uint32_t line;
    uint32_t column;
    size_t visited; /* values read so far, each alias counted as what it stands for */
    bool stopped;   /* past MANIFEST_VALUES_MAX: the rest is not looked at */
};

/* decode.c: fills the struct from the tree, by the table. */
void decode_manifest(struct loader *l, const struct yaml_tree *tree);

/* decode_scalar.c */

/* Reads a scalar into the member of a field of any type but MAP, LIST and STRINGS. */
void decode_scalar(struct loader *l, const struct schema_field *f, const struct yaml_node *node,
                   void *base);
/*
 * The text of a scalar, owned by the caller; NULL after it reported what is wrong. A required one
 * must not be blank, unless `blank_ok`.
 */
char *decode_text(struct loader *l, const struct yaml_node *node, bool required, bool blank_ok);
/* Whether the node's tag, if it has one, agrees with the declared type; reports when not. */
bool check_tag(struct loader *l, const struct yaml_node *node, enum schema_type type);
/* What was found instead, for messages: "a list", "nothing", or the text in quotes. */
#define FOUND_SIZE (SHOWN_SIZE + 16)
const char *describe(const struct yaml_node *node, char out[FOUND_SIZE]);
/* "a mapping", "a list" or "". */
const char *kind_word(const struct yaml_node *node);

/* rules.c: what concerns more than one value; called once, after decode_manifest(). */
void rules_check(struct loader *l);

/* problems.c */

/* At the value being read. */
void loader_error(struct loader *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void loader_warn(struct loader *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* At the place of a struct member, or without a place when the author did not write it. */
void loader_error_at(struct loader *l, const void *member, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void loader_warn_at(struct loader *l, const void *member, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* `path` may be "". Takes a copy of the texts. */
void problems_add(struct manifest_problems *p, bool warning, uint32_t line, uint32_t column,
                  const char *path, const char *text);
/* Into file order. */
void problems_sort(struct manifest_problems *p);

/*
 * Text of the file for use in a message: control characters as \xNN, cut after 60 bytes. Returns
 * `out`.
 */
const char *shown(struct slice text, char out[SHOWN_SIZE]);

/* rules_value.c: the table's checks of single values. */
void rule_version(struct loader *l, void *value);
void rule_target(struct loader *l, void *value);
void rule_image(struct loader *l, void *value);
void rule_file_path(struct loader *l, void *value);
void rule_ingress_port(struct loader *l, void *value);
void rule_egress_allow(struct loader *l, void *value);
void rule_egress_deny(struct loader *l, void *value);
void rule_s3_prefix(struct loader *l, void *value);
void rule_mount_name(struct loader *l, void *value);
void rule_mount_path(struct loader *l, void *value);
void rule_blank_is_absent(struct loader *l, void *value);

/* Removes blanks (space, tab) at both ends, in place. Returns s. */
char *trim(char *s);
bool is_blank(const char *s);

#endif
