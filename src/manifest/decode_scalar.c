/* Single values: from the YAML scalar to the type that the schema declares. */
#include "base/text.h"
#include "manifest/loader.h"

/* ---- what was found, in words ---- */

const char *kind_word(const struct yaml_node *node)
{
    return node->type == YAML_MAPPING ? "a mapping" : node->type == YAML_SEQUENCE ? "a list" : "";
}

const char *describe(const struct yaml_node *node, char out[FOUND_SIZE])
{
    char text[SHOWN_SIZE];

    if (node->type != YAML_SCALAR)
        snprintf(out, FOUND_SIZE, "%s", kind_word(node));
    else if (node->len == 0 && node->plain)
        snprintf(out, FOUND_SIZE, "nothing");
    else
        snprintf(out, FOUND_SIZE, "\"%s\"", shown(slice_of(node->text, node->len), text));
    return out;
}

static const char core_tag[] = "tag:yaml.org,2002:"; /* what "!!" stands for */

bool check_tag(struct loader *l, const struct yaml_node *node, enum schema_type type)
{
    static const char *const names[] = {
        [SCHEMA_STRING] = "str",  [SCHEMA_BOOL] = "bool", [SCHEMA_U16] = "int",
        [SCHEMA_I32] = "int",     [SCHEMA_U32] = "int",   [SCHEMA_U64] = "int",
        [SCHEMA_ENUM] = "str",    [SCHEMA_MAP] = "map",   [SCHEMA_LIST] = "seq",
        [SCHEMA_STRINGS] = "seq",
    };
    size_t core = sizeof(core_tag) - 1;
    char text[SHOWN_SIZE];

    if (!node->tag)
        return true;
    if (strncmp(node->tag, core_tag, core) != 0)
        loader_error(l, "the tag %s means nothing here; remove it",
                     shown(slice_str(node->tag), text));
    else if (strcmp(node->tag + core, names[type]) != 0)
        loader_error(l, "the tag !!%s does not fit here; remove it",
                     shown(slice_str(node->tag + core), text));
    else
        return true;
    return false;
}

/* ---- text ---- */

static bool has_control(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < 0x20)
            return true;
    return false;
}

char *decode_text(struct loader *l, const struct yaml_node *node, bool required, bool blank_ok)
{
    char found[FOUND_SIZE];
    struct slice text;

    if (node->type != YAML_SCALAR) {
        loader_error(l, "needs a single value, not %s", kind_word(node));
        return NULL;
    }
    text = slice_of(node->text, node->len);
    if (memchr(node->text, '\n', node->len)) {
        loader_error(l, "contains a line break; write the value on one line");
        return NULL;
    }
    if (has_control(text) || !utf8_valid(text)) {
        loader_error(l, "%s contains a control character", describe(node, found));
        return NULL;
    }
    if (required && !blank_ok && is_blank(node->text)) {
        loader_error(l, node->plain ? "needs a value" : "must not be blank");
        return NULL;
    }
    if (required && yaml_is_null(node) && node->len > 0)
        loader_warn(l, "is the text \"%s\"; put it in quotes if that is meant", node->text);
    return xstrdup(node->text);
}

static void decode_string(struct loader *l, const struct schema_field *f,
                          const struct yaml_node *node, char **at)
{
    char *text = decode_text(l, node, f->required, f->empty_is_ok);

    if (!text)
        return;
    free(*at);
    *at = text;
    if (f->check)
        f->check(l, at);
}

/* ---- booleans, numbers, enums ---- */

static const struct bool_word {
    const char *text;
    bool value;
    bool valid; /* else it is what YAML 1.1 and habit take for one */
} bool_words[] = {
    {"true", true, true},   {"True", true, true},   {"TRUE", true, true}, {"false", false, true},
    {"False", false, true}, {"FALSE", false, true}, {"yes", true, false}, {"no", false, false},
    {"on", true, false},    {"off", false, false},  {"y", true, false},   {"n", false, false},
    {"1", true, false},     {"0", false, false},
};

static void decode_bool(struct loader *l, const struct schema_field *f,
                        const struct yaml_node *node, void *base)
{
    struct slice text = slice_of(node->text, node->type == YAML_SCALAR ? node->len : 0);
    const struct bool_word *near = NULL;
    char found[FOUND_SIZE];

    for (size_t i = 0; i < ARRAY_LEN(bool_words); i++) {
        const struct bool_word *w = &bool_words[i];

        if (w->valid && node->plain && slice_equal_str(text, w->text)) {
            schema_set_number(f, base, w->value);
            return;
        }
        if (slice_equal_str_nocase(text, w->text) && (!near || !near->valid))
            near = w;
    }
    describe(node, found);
    if (near && near->valid && !node->plain)
        loader_error(l, "needs true or false without quotes, not %s", found);
    else if (near)
        loader_error(l, "needs true or false, not %s; did you mean %s?", found,
                     near->value ? "true" : "false");
    else
        loader_error(l, "needs true or false, not %s", found);
}

/* Digits of `base` only; true unless another byte is in the text or there is none. */
static bool digits(struct slice s, unsigned base, uint64_t *value, bool *overflow)
{
    *value = 0;
    *overflow = false;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                            : 99;

        if (d >= base)
            return false;
        if (__builtin_mul_overflow(*value, (uint64_t)base, value) ||
            __builtin_add_overflow(*value, (uint64_t)d, value))
            *overflow = true;
    }
    return s.len > 0;
}

enum number_fault {
    NUMBER_OK,
    NUMBER_OVERFLOW,
    NUMBER_NEGATIVE,
    NUMBER_LEADING_ZERO,
    NUMBER_UNDERSCORE,
    NUMBER_FRACTION,
    NUMBER_UNIT,
    NUMBER_NONE,
};

/* The integers of spec/manifest.md section 2. */
static enum number_fault read_number(struct slice s, uint64_t *value)
{
    bool negative = s.len > 0 && s.ptr[0] == '-', overflow;
    unsigned base = 10;

    if (s.len > 0 && (s.ptr[0] == '+' || negative))
        s = slice_of(s.ptr + 1, s.len - 1);
    if (s.len > 2 && s.ptr[0] == '0') {
        base = s.ptr[1] == 'x' ? 16 : s.ptr[1] == 'o' ? 8 : s.ptr[1] == 'b' ? 2 : 10;
        if (base != 10)
            s = slice_of(s.ptr + 2, s.len - 2);
    }
    if (digits(s, base, value, &overflow)) {
        if (base == 10 && s.len > 1 && s.ptr[0] == '0')
            return NUMBER_LEADING_ZERO;
        if (negative && *value)
            return NUMBER_NEGATIVE;
        return overflow ? NUMBER_OVERFLOW : NUMBER_OK;
    }
    if (s.len == 0 || s.ptr[0] < '0' || s.ptr[0] > '9')
        return NUMBER_NONE;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '_')
            return NUMBER_UNDERSCORE;
        if (s.ptr[i] == '.' || (s.ptr[i] == 'e' && i + 1 < s.len))
            return NUMBER_FRACTION;
    }
    return NUMBER_UNIT;
}

static void number_error(struct loader *l, const struct schema_field *f,
                         const struct yaml_node *node, enum number_fault fault)
{
    char found[FOUND_SIZE];

    describe(node, found);
    switch (fault) {
    case NUMBER_LEADING_ZERO:
        loader_error(l, "%s starts with a zero; write the number without it", found);
        break;
    case NUMBER_UNDERSCORE:
        loader_error(l, "needs a whole number without \"_\", not %s", found);
        break;
    case NUMBER_FRACTION:
        loader_error(l, "needs a whole number in plain digits, not %s", found);
        break;
    case NUMBER_UNIT:
        loader_error(l, "needs the number alone, not %s", found);
        break;
    case NUMBER_OVERFLOW:
    case NUMBER_NEGATIVE:
        if (f->max == UINT64_MAX || f->max == INT32_MAX || f->max == UINT32_MAX)
            loader_error(l, "must be %s %llu, not %s",
                         fault == NUMBER_OVERFLOW ? "at most" : "at least",
                         (unsigned long long)(fault == NUMBER_OVERFLOW ? f->max : f->min), found);
        else
            loader_error(l, "must be from %llu to %llu, not %s", (unsigned long long)f->min,
                         (unsigned long long)f->max, found);
        break;
    default:
        loader_error(l, "needs a whole number, not %s", found);
    }
}

static void decode_number(struct loader *l, const struct schema_field *f,
                          const struct yaml_node *node, void *base)
{
    char found[FOUND_SIZE];
    enum number_fault fault;
    uint64_t value = 0;

    if (node->type != YAML_SCALAR) {
        loader_error(l, "needs a whole number, not %s", kind_word(node));
        return;
    }
    if (yaml_is_null(node)) {
        loader_error(l, "needs a value");
        return;
    }
    fault = read_number(slice_of(node->text, node->len), &value);
    if (!node->plain && fault != NUMBER_NONE) {
        loader_error(l, "needs a number without quotes, not %s", describe(node, found));
        return;
    }
    if (fault == NUMBER_OK && value < f->min)
        fault = NUMBER_NEGATIVE;
    if (fault == NUMBER_OK && value > f->max)
        fault = NUMBER_OVERFLOW;
    if (fault != NUMBER_OK) {
        number_error(l, f, node, fault);
        return;
    }
    schema_set_number(f, base, value);
    if (f->check)
        f->check(l, (char *)base + f->offset);
}

static void decode_enum(struct loader *l, const struct schema_field *f,
                        const struct yaml_node *node, void *base)
{
    AUTO_BUF struct buf names = BUF(512);
    const char *known[8] = {NULL}, *near;
    char found[FOUND_SIZE];
    size_t count = 0;
    bool fits = true;

    for (const struct schema_choice *c = f->choices; c->name; c++) {
        if (node->type == YAML_SCALAR &&
            slice_equal_str(slice_of(node->text, node->len), c->name)) {
            schema_set_number(f, base, (uint64_t)c->value);
            return;
        }
        fits = fits && buf_printf(&names, "%s%s", count ? ", " : "", c->name) == 0;
        if (count < ARRAY_LEN(known))
            known[count++] = c->name;
    }
    near = node->type == YAML_SCALAR ? text_nearest_word(node->text, known, count) : NULL;
    loader_error(l, "needs %s%s, not %s%s%s%s", count > 1 ? "one of " : "",
                 fits ? buf_cstr(&names) : "the known words", describe(node, found),
                 near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

void decode_scalar(struct loader *l, const struct schema_field *f, const struct yaml_node *value,
                   void *base)
{
    switch (f->type) {
    case SCHEMA_STRING:
        decode_string(l, f, value, (char **)(void *)((char *)base + f->offset));
        break;
    case SCHEMA_BOOL:
        decode_bool(l, f, value, base);
        break;
    case SCHEMA_ENUM:
        decode_enum(l, f, value, base);
        break;
    default:
        decode_number(l, f, value, base);
    }
}
