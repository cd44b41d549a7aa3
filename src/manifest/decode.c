/* From the YAML tree to struct manifest, by the schema table: lists and mappings. */
#include "base/text.h"
#include "manifest/loader.h"

static void decode_map(struct loader *l, const struct schema_object *o, const struct yaml_node *map,
                       void *base);

/* ---- path and place of the value being read ---- */

static size_t enter_key(struct loader *l, const char *key)
{
    size_t before = l->path.len;
    char text[SHOWN_SIZE];

    if (buf_printf(&l->path, "%s%s", before ? "." : "", shown(slice_str(key), text)) < 0)
        return before; /* a key path that is too long is shown cut */
    return before;
}

static size_t enter_index(struct loader *l, size_t index)
{
    size_t before = l->path.len;

    if (buf_printf(&l->path, "[%zu]", index) < 0)
        return before;
    return before;
}

static void leave(struct loader *l, size_t before)
{
    l->path.len = before;
}

static void stand_at(struct loader *l, const struct yaml_node *node, const struct yaml_node *key)
{
    const struct yaml_node *at = node->line || !key ? node : key;

    l->line = at->line;
    l->column = at->column;
}

static void remember_place(struct loader *l, const void *member)
{
    struct manifest *m = l->m;

    if (m->place_count % 64 == 0)
        m->places = xreallocarray(m->places, m->place_count + 64, sizeof(*m->places));
    m->places[m->place_count++] = (struct manifest_place){
        .member = member,
        .line = l->line,
        .column = l->column,
        .path = xstrdup(buf_cstr(&l->path)),
    };
}

/* Bounds the work that aliases can ask for. False: stop. */
static bool count_value(struct loader *l)
{
    if (!l->stopped && ++l->visited > MANIFEST_VALUES_MAX) {
        loader_error(l, "too many values once aliases are expanded; the limit is %d",
                     MANIFEST_VALUES_MAX);
        l->stopped = true;
    }
    return !l->stopped;
}

static void undefined_alias(struct loader *l, const struct yaml_node *alias)
{
    char text[SHOWN_SIZE];

    loader_error(l,
                 "a value that starts with * needs quotes: \"*%s\"; without them it is a YAML "
                 "alias, and no anchor of that name comes before it",
                 shown(slice_of(alias->text, alias->len), text));
}

/* ---- lists ---- */

static void decode_entry(struct loader *l, const struct schema_field *f,
                         const struct yaml_node *node, void *entry)
{
    static const struct yaml_node empty = {.type = YAML_MAPPING};
    const struct yaml_node *value = yaml_resolve(node);

    if (!value) {
        undefined_alias(l, node);
    } else if (f->type == SCHEMA_STRINGS) {
        char **at = entry;

        if (check_tag(l, value, SCHEMA_STRING))
            *at = decode_text(l, value, true, false);
        if (*at && f->check) {
            remember_place(l, at);
            f->check(l, at);
        }
    } else {
        decode_map(l, f->object, yaml_is_null(value) ? &empty : value, entry);
    }
    if (f->type == SCHEMA_STRINGS && !*(char **)entry)
        *(char **)entry = xstrdup(""); /* reported; nobody shall trip over a NULL */
}

static void decode_list(struct loader *l, const struct schema_field *f,
                        const struct yaml_node *node, struct schema_list *list)
{
    uint32_t line = l->line, column = l->column;
    size_t count = node->count, size = schema_entry_size(f), i = 0;
    char found[FOUND_SIZE];

    if (node->type != YAML_SEQUENCE) {
        if (f->type == SCHEMA_LIST)
            loader_error(l, "needs a list of entries such as \"- %s: ...\", not %s",
                         f->object->fields[0].key, describe(node, found));
        else
            loader_error(l, "needs a list, each entry behind a \"- \", not %s",
                         describe(node, found));
        return;
    }
    if (f->max && count > f->max) {
        loader_error(l, "has %zu entries; %llu is the most", count, (unsigned long long)f->max);
        count = (size_t)f->max;
    }
    list->items = xcalloc(count ? count : 1, size);
    for (const struct yaml_node *n = node->child; n && i < count; n = n->next, i++) {
        void *entry = (char *)list->items + i * size;
        size_t before = enter_index(l, i);

        list->count = i + 1;
        stand_at(l, n, NULL);
        if (!n->line) {
            l->line = line;
            l->column = column;
        }
        if (f->type == SCHEMA_LIST)
            schema_set_defaults(f->object, entry);
        if (count_value(l))
            decode_entry(l, f, n, entry);
        else if (f->type == SCHEMA_STRINGS)
            *(char **)entry = xstrdup("");
        leave(l, before);
    }
}

/* ---- mappings ---- */

/* The key path of the first table row with this key, other than at the top; NULL when none. */
static bool find_elsewhere(const struct schema_object *o, const char *key, bool top,
                           struct buf *path)
{
    size_t before = path->len;

    for (const struct schema_field *f = o->fields; f < o->fields + o->count; f++) {
        path->len = before;
        if (buf_printf(path, "%s%s", before ? "." : "", f->key) < 0)
            return false;
        if (!top && strcmp(f->key, key) == 0)
            return true;
        if (f->object && find_elsewhere(f->object, key, false, path))
            return true;
    }
    path->len = before;
    return false;
}

static const struct schema_field *find_field(const struct schema_object *o, const char *key)
{
    for (const struct schema_field *f = o->fields; f < o->fields + o->count; f++)
        if (strcmp(f->key, key) == 0)
            return f;
    return NULL;
}

/* Returns the row that the key is a misspelling of, if it is one. */
static const struct schema_field *unknown_key(struct loader *l, const struct schema_object *o,
                                              const char *key)
{
    const char *known[SCHEMA_FIELDS_MAX] = {NULL}, *near;
    AUTO_BUF struct buf elsewhere = BUF(256);
    AUTO_BUF struct buf all = BUF(512);

    if (strcmp(key, "<<") == 0) {
        loader_error(l, "merge keys are not supported; write the keys out");
        return NULL;
    }
    for (size_t i = 0; i < o->count; i++)
        known[i] = o->fields[i].key;
    near = text_nearest_word(key, known, o->count);
    if (near) {
        loader_error(l, "unknown key; did you mean \"%s\"?", near);
        return find_field(o, near);
    }
    for (const struct schema_field *f = schema_root.fields;
         o != &schema_root && f < schema_root.fields + schema_root.count; f++) {
        if (strcmp(f->key, key) == 0) {
            loader_error(l,
                         "unknown key here; did you mean \"%s\" at the top level, with less "
                         "indentation?",
                         key);
            return NULL;
        }
    }
    if (find_elsewhere(&schema_root, key, true, &elsewhere)) {
        loader_error(l, "unknown key here; did you mean %s?", buf_cstr(&elsewhere));
        return NULL;
    }
    for (size_t i = 0; i < o->count; i++)
        if (buf_printf(&all, "%s%s", i ? ", " : "", known[i]) < 0)
            break;
    loader_error(l, "unknown key; the keys here are %s", buf_cstr(&all));
    return NULL;
}

static void decode_field(struct loader *l, const struct schema_field *f,
                         const struct yaml_node *key, const struct yaml_node *node, void *base)
{
    static const struct yaml_node empty = {.type = YAML_MAPPING};
    bool container = f->type == SCHEMA_MAP || f->type == SCHEMA_LIST || f->type == SCHEMA_STRINGS;
    void *at = (char *)base + f->offset;
    const struct yaml_node *value = yaml_resolve(node);

    /* A mapping or list is best found by its key, a scalar by itself. */
    stand_at(l, container ? key : node, key);
    if (!count_value(l))
        return;
    if (!value) {
        stand_at(l, node, key);
        undefined_alias(l, node);
        return;
    }
    if (yaml_is_null(value) && (!f->required || f->type == SCHEMA_MAP)) {
        if (!f->required)
            return;
        value = &empty;
    }
    if (!check_tag(l, value, f->type))
        return;
    remember_place(l, at);
    if (f->type == SCHEMA_MAP) {
        *(bool *)at = true;
        decode_map(l, f->object, value, at);
    } else if (container) {
        decode_list(l, f, value, at);
    } else {
        decode_scalar(l, f, value, base);
    }
}

static void decode_pair(struct loader *l, const struct schema_object *o,
                        const struct yaml_node *key_node, const struct yaml_node *node, void *base,
                        uint32_t *first_line)
{
    const struct yaml_node *key = yaml_resolve(key_node);
    const struct schema_field *f;
    size_t before;

    stand_at(l, key_node, node);
    if (!key) {
        undefined_alias(l, key_node);
        return;
    }
    if (key->type != YAML_SCALAR || strlen(key->text) != key->len) {
        loader_error(l, "a key must be a word, not %s",
                     key->type == YAML_SCALAR ? "text with a NUL byte" : kind_word(key));
        return;
    }
    before = enter_key(l, key->text);
    f = find_field(o, key->text);
    if (!f) {
        f = unknown_key(l, o, key->text);
        if (f && !first_line[f - o->fields])
            first_line[f - o->fields] = UINT32_MAX; /* so it is not missing as well */
    } else if (first_line[f - o->fields] == UINT32_MAX) {
        first_line[f - o->fields] = key_node->line;
        decode_field(l, f, key_node, node, base);
    } else if (first_line[f - o->fields]) {
        loader_error(l, "duplicate key; it is on line %u already", first_line[f - o->fields]);
    } else {
        first_line[f - o->fields] = key_node->line ? key_node->line : 1;
        decode_field(l, f, key_node, node, base);
    }
    leave(l, before);
}

static void decode_map(struct loader *l, const struct schema_object *o, const struct yaml_node *map,
                       void *base)
{
    uint32_t first_line[SCHEMA_FIELDS_MAX] = {0};
    uint32_t line = l->line, column = l->column;
    char found[FOUND_SIZE];

    if (map->type != YAML_MAPPING) {
        bool glued = map->type == YAML_SCALAR && map->plain && strchr(map->text, ':');

        loader_error(l, "needs keys, such as \"%s: ...\", not %s%s", o->fields[0].key,
                     describe(map, found), glued ? "; a blank belongs behind the \":\"" : "");
        return;
    }
    for (const struct yaml_node *k = map->child; k && !l->stopped; k = k->next->next)
        decode_pair(l, o, k, k->next, base, first_line);
    for (size_t i = 0; i < o->count && !l->stopped; i++) {
        const struct schema_field *f = &o->fields[i];
        size_t before;

        if (f->implied) /* even when it is written with nothing in it */
            *(bool *)((char *)base + f->offset) = true;
        if (!f->required || first_line[i])
            continue;
        before = enter_key(l, f->key);
        l->line = line;
        l->column = column;
        loader_error(l, "missing; it is required (%s)", f->about);
        leave(l, before);
    }
}

void decode_manifest(struct loader *l, const struct yaml_tree *tree)
{
    const struct yaml_node *root = tree->root;

    schema_set_defaults(&schema_root, l->m);
    stand_at(l, root, NULL);
    if (yaml_is_null(root))
        loader_error(l, "the file is empty");
    else if (root->type != YAML_MAPPING)
        loader_error(l, "a manifest is a mapping of keys, such as \"version: v1\"; this is %s",
                     root->type == YAML_SCALAR ? "plain text" : kind_word(root));
    else
        decode_map(l, &schema_root, root, l->m);
}
