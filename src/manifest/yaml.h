/*
 * A YAML document as a tree of nodes with positions, within bounds. libfyaml reads the syntax; the
 * tree is ours, so that depth, size and aliases are limited while it grows.
 */
#ifndef CAPSULE_MANIFEST_YAML_H
#define CAPSULE_MANIFEST_YAML_H

#include "base/error.h"
#include "base/slice.h"

enum yaml_type {
    YAML_SCALAR,
    YAML_SEQUENCE,
    YAML_MAPPING,
    YAML_ALIAS,
};

struct yaml_node {
    enum yaml_type type;
    bool plain;                     /* SCALAR without quotes, and not a block scalar */
    uint32_t line;                  /* counted from 1; 0 when the value is empty and has no place */
    uint32_t column;                /* in characters, counted from 1 */
    char *text;                     /* SCALAR: content, ALIAS: name; NUL-terminated */
    size_t len;                     /* of text, which may contain NUL bytes */
    char *tag;                      /* resolved tag, or NULL */
    const struct yaml_node *target; /* ALIAS: NULL when there is no such anchor before it */
    struct yaml_node *child;        /* first element; of a mapping: key, value, key, value ... */
    struct yaml_node *next;         /* next element of the parent */
    size_t count;                   /* elements; keys and values count one each */
};

struct yaml_tree {
    struct yaml_node **nodes; /* all of them */
    size_t count;
    size_t cap;
    struct yaml_node *root;
};

struct yaml_limits {
    size_t depth; /* sequences and mappings inside one another */
    size_t nodes;
};

/* Where the text is at fault. */
struct yaml_fault {
    uint32_t line;
    uint32_t column;
};

/*
 * Parses text that holds exactly one document. Refuses bytes that are not UTF-8 and control
 * characters. Duplicate keys, tags and aliases are left to the caller, who sees them in the tree.
 * On failure *fault is set, err->msg speaks about that place, and the tree is empty.
 */
int yaml_parse(struct slice text, const struct yaml_limits *limits, struct yaml_tree *tree,
               struct yaml_fault *fault, struct error *err);
void yaml_tree_free(struct yaml_tree *tree);

/* What an alias stands for (NULL when undefined), any other node itself. */
const struct yaml_node *yaml_resolve(const struct yaml_node *node);
/* A plain null: nothing, ~, null, Null or NULL. */
bool yaml_is_null(const struct yaml_node *node);

#endif
