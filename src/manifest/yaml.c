#include "manifest/yaml.h"

#include "base/text.h"

#include <libfyaml.h>

/* An anchor is a definition that is looked up by name from the newest back. */
#define ANCHORS_MAX 256

struct anchor {
    char *name;
    size_t len;
    struct yaml_node *node;
};

struct builder {
    const struct yaml_limits *limits;
    struct slice source;
    struct yaml_tree *tree;
    struct yaml_node **open; /* the containers we are in, outermost first */
    size_t depth;
    struct anchor anchors[ANCHORS_MAX];
    size_t anchor_count;
    struct yaml_fault *fault;
    struct error *err;
};

static int fail_at(struct builder *b, const struct fy_mark *mark, enum error_kind kind,
                   const char *text)
{
    b->fault->line = mark ? (uint32_t)mark->line + 1 : 0;
    b->fault->column = mark ? (uint32_t)mark->column + 1 : 0;
    return error_set(b->err, kind, "%s", text);
}

/* ---- bytes ---- */

static size_t utf8_length(uint8_t lead)
{
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* libfyaml takes bad UTF-8 and NUL as the end of the text, so both are found before it looks. */
static int check_bytes(struct slice text, struct yaml_fault *fault, struct error *err)
{
    fault->line = 1;
    fault->column = 1;
    if (text.len >= 2 &&
        (memcmp(text.ptr, "\xff\xfe", 2) == 0 || memcmp(text.ptr, "\xfe\xff", 2) == 0))
        return error_set(err, ERR_INVALID, "the file is UTF-16; save it as UTF-8");
    for (size_t i = 0; i < text.len;) {
        uint8_t c = text.ptr[i];
        size_t len = utf8_length(c);

        if (c < 0x20 && c != '\n' && c != '\r' && c != '\t')
            return error_set(err, ERR_INVALID,
                             "control character \\x%02x; a manifest is plain text", c);
        if (len > text.len - i || !utf8_valid(slice_of(text.ptr + i, len)))
            return error_set(err, ERR_INVALID, "byte \\x%02x is not UTF-8; save the file as UTF-8",
                             c);
        i += len;
        fault->column++;
        if (c == '\n') {
            fault->line++;
            fault->column = 1;
        }
    }
    return 0;
}

/* ---- tree ---- */

static struct yaml_node *node_new(struct builder *b, enum yaml_type type,
                                  const struct fy_mark *mark, struct fy_token *tag)
{
    struct yaml_tree *t = b->tree;
    struct yaml_node *node;

    if (t->count == b->limits->nodes) {
        fail_at(b, mark, ERR_LIMIT, "too many values in one file");
        error_hint(b->err, "the limit is %zu keys and values", b->limits->nodes);
        return NULL;
    }
    if (t->count == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 64;
        t->nodes = xreallocarray(t->nodes, t->cap, sizeof(struct yaml_node *));
    }
    node = xcalloc(1, sizeof(*node));
    node->type = type;
    if (mark) {
        node->line = (uint32_t)mark->line + 1;
        node->column = (uint32_t)mark->column + 1;
    }
    if (tag) {
        size_t len = 0;
        const char *text = fy_token_get_text(tag, &len);

        node->tag = slice_dup_str(slice_of(text, len));
    }
    t->nodes[t->count++] = node;
    return node;
}

static void set_text(struct yaml_node *node, struct fy_token *token)
{
    size_t len = 0;
    const char *text = token ? fy_token_get_text(token, &len) : NULL;

    node->text = text ? slice_dup_str(slice_of(text, len)) : xstrdup("");
    node->len = text ? len : 0;
}

/* What stands between the quotes of a scalar in single ones; empty for any other. */
static struct slice between_quotes(const struct builder *b, struct fy_token *token)
{
    const struct fy_mark *start = token ? fy_token_start_mark(token) : NULL;
    const struct fy_mark *end = token ? fy_token_end_mark(token) : NULL;
    const struct slice none = {0};

    if (!start || !end || fy_token_scalar_style(token) != FYSS_SINGLE_QUOTED ||
        start->input_pos == 0 || start->input_pos > end->input_pos ||
        end->input_pos >= b->source.len || b->source.ptr[start->input_pos - 1] != '\'' ||
        b->source.ptr[end->input_pos] != '\'')
        return none;
    return slice_of(b->source.ptr + start->input_pos, end->input_pos - start->input_pos);
}

/*
 * The text of a scalar. libfyaml 0.7.12 gets wrong what has two single quotes in a row, which are
 * four in single quotes ('a''''b'): the end is lost, and memory leaks.
 */
static int set_scalar(struct builder *b, struct yaml_node *node, struct fy_token *token,
                      const struct fy_mark *mark)
{
    const struct slice raw = between_quotes(b, token);

    if (!raw.ptr || !memmem(raw.ptr, raw.len, "''''", 4)) {
        set_text(node, token);
        return 0;
    }
    if (memchr(raw.ptr, '\n', raw.len) || memchr(raw.ptr, '\r', raw.len))
        return fail_at(b, mark, ERR_INVALID,
                       "two single quotes in a row in a value of several lines cannot be read; put "
                       "it in double quotes");
    node->text = xmalloc(raw.len + 1);
    for (size_t i = 0; i < raw.len; i++) {
        node->text[node->len++] = (char)raw.ptr[i];
        i += raw.ptr[i] == '\'';
    }
    node->text[node->len] = '\0';
    return 0;
}

static void set_style(struct yaml_node *node, struct fy_token *token)
{
    enum fy_scalar_style style = token ? fy_token_scalar_style(token) : FYSS_PLAIN;

    node->plain = style == FYSS_PLAIN;
    if ((style == FYSS_SINGLE_QUOTED || style == FYSS_DOUBLE_QUOTED) && node->column > 1)
        node->column--; /* the mark is behind the quote */
}

/* Hangs the node under the innermost open container. Its last child is found through `last`. */
static void attach(struct builder *b, struct yaml_node **last, struct yaml_node *node)
{
    struct yaml_node *parent = b->depth ? b->open[b->depth - 1] : NULL;

    if (!parent)
        b->tree->root = node;
    else if (last[b->depth - 1])
        last[b->depth - 1]->next = node;
    else
        parent->child = node;
    if (parent) {
        parent->count++;
        last[b->depth - 1] = node;
    }
}

static int add_anchor(struct builder *b, struct fy_token *token, struct yaml_node *node,
                      const struct fy_mark *mark)
{
    struct anchor *a;
    const char *text;

    if (!token)
        return 0;
    if (b->anchor_count == ANCHORS_MAX)
        return fail_at(b, mark, ERR_LIMIT, "too many anchors (&name); 256 is the limit");
    a = &b->anchors[b->anchor_count++];
    a->len = 0;
    text = fy_token_get_text(token, &a->len);
    a->name = slice_dup_str(slice_of(text, a->len));
    a->node = node;
    return 0;
}

static int resolve_alias(struct builder *b, struct yaml_node *node, const struct fy_mark *mark)
{
    for (size_t i = b->anchor_count; i-- > 0;) {
        const struct anchor *a = &b->anchors[i];

        if (a->len != node->len || memcmp(a->name, node->text, a->len) != 0)
            continue;
        for (size_t j = 0; j < b->depth; j++)
            if (b->open[j] == a->node)
                return fail_at(b, mark, ERR_INVALID,
                               "this alias refers to the very value that it is part of");
        node->target = a->node;
        return 0;
    }
    return 0;
}

static int on_event(struct builder *b, struct yaml_node **last, struct fy_event *e)
{
    const struct fy_mark *mark = fy_event_start_mark(e);
    bool mapping = e->type == FYET_MAPPING_START;
    struct yaml_node *node;

    switch (e->type) {
    case FYET_SCALAR:
        node = node_new(b, YAML_SCALAR, e->scalar.value ? mark : NULL, e->scalar.tag);
        if (!node)
            return -1;
        if (set_scalar(b, node, e->scalar.value, mark) < 0)
            return -1;
        set_style(node, e->scalar.value);
        attach(b, last, node);
        return add_anchor(b, e->scalar.anchor, node, mark);
    case FYET_ALIAS:
        node = node_new(b, YAML_ALIAS, mark, NULL);
        if (!node)
            return -1;
        if (node->column > 1)
            node->column--; /* the mark is behind the "*" */
        set_text(node, e->alias.anchor);
        attach(b, last, node);
        return resolve_alias(b, node, mark);
    case FYET_MAPPING_START:
    case FYET_SEQUENCE_START:
        if (b->depth == b->limits->depth)
            return fail_at(b, mark, ERR_LIMIT, "nested too deeply");
        node = node_new(b, mapping ? YAML_MAPPING : YAML_SEQUENCE, mark,
                        mapping ? e->mapping_start.tag : e->sequence_start.tag);
        if (!node)
            return -1;
        attach(b, last, node);
        last[b->depth] = NULL;
        b->open[b->depth++] = node;
        return add_anchor(b, mapping ? e->mapping_start.anchor : e->sequence_start.anchor, node,
                          mark);
    case FYET_MAPPING_END:
    case FYET_SEQUENCE_END:
        b->depth--;
        return 0;
    case FYET_DOCUMENT_START:
        if (b->tree->root)
            return fail_at(b, mark, ERR_INVALID,
                           "a second document starts here; a manifest is exactly one");
        return 0;
    default:
        return 0;
    }
}

/* ---- syntax errors ---- */

static void swallow(struct fy_diag *diag, void *user, const char *text, size_t len)
{
    (void)diag;
    (void)user;
    (void)text;
    (void)len;
}

static struct fy_diag *diag_new(void)
{
    struct fy_diag_cfg cfg;
    struct fy_diag *diag;

    fy_diag_cfg_default(&cfg);
    cfg.fp = NULL;
    cfg.output_fn = swallow;
    cfg.level = FYET_ERROR;
    cfg.colorize = false;
    diag = fy_diag_create(&cfg);
    if (diag)
        fy_diag_set_collect_errors(diag, true);
    return diag;
}

/* The library's words, except where a beginner needs to hear the way out. */
static const char *advice(const char *msg)
{
    static const struct {
        const char *part;
        const char *advice;
    } table[] = {
        {"tab character", "use spaces"},
        {"plain scalar cannot start with", "put the value in quotes"},
        {"nested block mapping on the same line", "put a value that contains \": \" in quotes"},
        {"invalid multiline plain key", "check the indentation, and the quotes around \": \""},
        {"invalid indentation", "keys of one block start in the same column"},
        {"invalid mapping in plain multiline", "keys of one block start in the same column"},
        {"invalid escape", "write \\\\ for a backslash, or use single quotes"},
        {"quoted scalar", "check that every quote is closed"},
        {"end of block sequence", "further keys of an entry start below its first one"},
        {"missing document start", "a manifest is made of lines like \"key: value\""},
        {"wrongly indented flow", "close each { and ["},
        {"without a closing", "close each { and ["},
        {"missing comma", "separate entries by commas, and close each { and ["},
        {"could not find expected ':'", "a key is followed by \": \""},
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (strstr(msg, table[i].part))
            return table[i].advice;
    return NULL;
}

static int syntax_error(struct fy_diag *diag, struct yaml_fault *fault, struct error *err)
{
    void *iter = NULL;
    struct fy_diag_error *e = fy_diag_errors_iterate(diag, &iter);
    const char *what = e && e->msg ? e->msg : "malformed text or directive";
    const char *todo = advice(what);

    fault->line = e && e->line > 0 ? (uint32_t)e->line : 0;
    fault->column = e && e->column > 0 ? (uint32_t)e->column : 0;
    return error_set(err, ERR_INVALID, "not valid YAML: %s%s%s", what, todo ? "; " : "",
                     todo ? todo : "");
}

/* ---- public ---- */

static int run_parser(struct builder *b, struct yaml_node **last, struct fy_parser *parser,
                      struct fy_diag *diag)
{
    struct fy_event *e;

    while ((e = fy_parser_parse(parser))) {
        int rc = on_event(b, last, e);

        fy_parser_event_free(parser, e);
        if (rc < 0)
            return -1;
    }
    if (fy_parser_get_stream_error(parser))
        return syntax_error(diag, b->fault, b->err);
    if (!b->tree->root)
        return fail_at(b, NULL, ERR_INVALID, "the file is empty");
    return 0;
}

static int parse(struct builder *b, struct slice text, struct yaml_node **last)
{
    struct fy_diag *diag = diag_new();
    struct fy_parse_cfg cfg = {
        .flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG | FYPCF_DEFAULT_VERSION_1_2 | FYPCF_JSON_NONE,
        .diag = diag,
    };
    struct fy_parser *parser = diag ? fy_parser_create(&cfg) : NULL;
    int rc;

    if (!parser || fy_parser_set_string(parser, (const char *)text.ptr, text.len) != 0)
        rc = error_set(b->err, ERR_INTERNAL, "the YAML parser could not be set up");
    else
        rc = run_parser(b, last, parser, diag);
    if (parser)
        fy_parser_destroy(parser);
    if (diag)
        fy_diag_destroy(diag);
    return rc;
}

int yaml_parse(struct slice text, const struct yaml_limits *limits, struct yaml_tree *tree,
               struct yaml_fault *fault, struct error *err)
{
    AUTO_FREE struct yaml_node **open = xcalloc(limits->depth, sizeof(struct yaml_node *));
    AUTO_FREE struct yaml_node **last = xcalloc(limits->depth, sizeof(struct yaml_node *));
    struct builder b = {
        .limits = limits, .source = text, .tree = tree, .open = open, .fault = fault, .err = err};
    int rc;

    *tree = (struct yaml_tree){0};
    *fault = (struct yaml_fault){0};
    if (check_bytes(text, fault, err) < 0)
        return -1;
    *fault = (struct yaml_fault){0};
    if (text.len == 0)
        return error_set(err, ERR_INVALID, "the file is empty");
    rc = parse(&b, text, last);
    for (size_t i = 0; i < b.anchor_count; i++)
        free(b.anchors[i].name);
    if (rc < 0)
        yaml_tree_free(tree);
    return rc;
}

void yaml_tree_free(struct yaml_tree *tree)
{
    for (size_t i = 0; i < tree->count; i++) {
        free(tree->nodes[i]->text);
        free(tree->nodes[i]->tag);
        free(tree->nodes[i]);
    }
    free(tree->nodes);
    *tree = (struct yaml_tree){0};
}

const struct yaml_node *yaml_resolve(const struct yaml_node *node)
{
    return node->type == YAML_ALIAS ? node->target : node;
}

bool yaml_is_null(const struct yaml_node *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};

    if (node->type != YAML_SCALAR || !node->plain || node->tag)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (node->len == strlen(words[i]) && memcmp(node->text, words[i], node->len) == 0)
            return true;
    return false;
}
