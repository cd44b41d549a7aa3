/* The parsers of package databases, line by line. */
#include "oci/packages_priv.h"

#include "base/text.h"

#include <ctype.h>
#include <stdio.h>

#define LINE_MAX_LEN 4096 /* what is kept of a line; values that matter are shorter */

struct package_reader {
    enum package_kind kind;
    struct package_list *to;
    struct buf line;
    bool cut; /* the line is longer than what is kept of it */
    unsigned int number;
    struct package now;
    bool absent; /* dpkg knows the package, and it is not installed */
};

void package_free(struct package *p)
{
    free(p->name);
    free(p->version);
    free(p->arch);
    free(p->source);
    free(p->maintainer);
    free(p->license);
    *p = (struct package){0};
}

void package_list_free(struct package_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        package_free(&l->items[i]);
    free(l->items);
    free(l->os_id);
    free(l->os_version);
    *l = (struct package_list){0};
}

/* A copy that can be shown: bytes that are no UTF-8, and control characters, become '?'. */
static char *text_of(struct slice s)
{
    char *out = slice_dup_str(s);
    bool good = utf8_valid(s);

    for (size_t i = 0; i < s.len; i++)
        if ((!good && s.ptr[i] >= 0x80) || s.ptr[i] < 0x20 || s.ptr[i] == 0x7f)
            out[i] = '?';
    return out;
}

int package_set(char **to, struct slice value, struct error *err)
{
    if (value.len > PACKAGES_FIELD_MAX)
        return error_set(err, ERR_LIMIT, "a value of more than %d bytes", PACKAGES_FIELD_MAX);
    free(*to);
    *to = value.len ? text_of(value) : NULL;
    return 0;
}

int package_list_add(struct package_list *l, struct package *p, struct error *err)
{
    if (!p->name || !p->version)
        return error_set(err, ERR_INVALID, "a package without a %s", p->name ? "version" : "name");
    if (l->count == PACKAGES_MAX)
        return error_set(err, ERR_LIMIT, "more than %d packages", PACKAGES_MAX);
    if ((l->count & (l->count - 1)) == 0)
        l->items = xreallocarray(l->items, l->count ? 2 * l->count : 1, sizeof(*l->items));
    l->items[l->count++] = *p;
    *p = (struct package){0};
    return 0;
}

/* A line that was cut is longer than any value may be. */
static int keep(struct package_reader *r, char **to, struct slice value, struct error *err)
{
    if (r->cut)
        value.len = PACKAGES_FIELD_MAX + 1;
    return package_set(to, value, err) < 0 ? error_wrap(err, "line %u", r->number) : 0;
}

/* ---- packages ---- */

static int end_package(struct package_reader *r, struct error *err)
{
    struct package *p = &r->now;
    bool some = p->name || p->version || p->arch || p->source || p->maintainer || p->license;
    int rc = 0;

    p->kind = r->kind;
    if (some && !r->absent)
        rc = package_list_add(r->to, p, err);
    package_free(p);
    r->absent = false;
    return rc < 0 ? error_wrap(err, "line %u", r->number) : 0;
}

/* "want flag status": only the last word counts. */
static void take_status(struct package_reader *r, struct slice value)
{
    static const char word[] = "installed";
    size_t n = sizeof(word) - 1;

    r->absent = value.len < n || memcmp(value.ptr + value.len - n, word, n) != 0 ||
                (value.len > n && value.ptr[value.len - n - 1] != ' ');
}

static int take_deb(struct package_reader *r, struct slice name, struct slice value,
                    struct error *err)
{
    struct package *p = &r->now;
    const struct {
        const char *name;
        char **to;
    } fields[] = {{"Package", &p->name},
                  {"Version", &p->version},
                  {"Source", &p->source},
                  {"Architecture", &p->arch},
                  {"Maintainer", &p->maintainer}};

    if (slice_equal_str_nocase(name, "Status"))
        take_status(r, value);
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        if (slice_equal_str_nocase(name, fields[i].name))
            return keep(r, fields[i].to, value, err);
    return 0;
}

static int take_apk(struct package_reader *r, uint8_t key, struct slice value, struct error *err)
{
    struct package *p = &r->now;

    switch (key) {
    case 'P':
        return keep(r, &p->name, value, err);
    case 'V':
        return keep(r, &p->version, value, err);
    case 'A':
        return keep(r, &p->arch, value, err);
    case 'o':
        return keep(r, &p->source, value, err);
    case 'm':
        return keep(r, &p->maintainer, value, err);
    case 'L':
        return keep(r, &p->license, value, err);
    default:
        return 0;
    }
}

static struct slice trim(struct slice s)
{
    while (s.len && isspace(s.ptr[s.len - 1]))
        s.len--;
    while (s.len && isspace(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    return s;
}

static int take_line(struct package_reader *r, struct error *err)
{
    struct slice line = buf_slice(&r->line), name, value;
    const uint8_t *colon;

    r->number++;
    if (trim(line).len == 0)
        return end_package(r, err);
    if (isspace(line.ptr[0])) /* goes on with the field before */
        return 0;
    colon = memchr(line.ptr, ':', line.len);
    if (!colon)
        return error_set(err, ERR_INVALID, "line %u: not a field and its value", r->number);
    name = slice_of(line.ptr, (size_t)(colon - line.ptr));
    value = trim(slice_of(colon + 1, line.len - name.len - 1));
    if (r->kind == PACKAGE_DEB)
        return take_deb(r, name, value, err);
    return name.len == 1 ? take_apk(r, name.ptr[0], value, err) : 0;
}

/* ---- bytes ---- */

struct package_reader *package_reader_new(enum package_kind kind, struct package_list *to)
{
    struct package_reader *r = xcalloc(1, sizeof(*r));

    r->kind = kind;
    r->to = to;
    r->line = BUF(LINE_MAX_LEN);
    return r;
}

static void add_to_line(struct package_reader *r, struct slice part)
{
    size_t room = r->line.max - r->line.len;

    if (part.len > room) {
        r->cut = true;
        part.len = room;
    }
    /* It fits. */
    if (part.len && buf_append(&r->line, part.ptr, part.len) < 0)
        abort();
}

int package_reader_feed(struct package_reader *r, struct slice bytes, struct error *err)
{
    while (bytes.len) {
        const uint8_t *end = memchr(bytes.ptr, '\n', bytes.len);
        size_t n = end ? (size_t)(end - bytes.ptr) : bytes.len;

        add_to_line(r, slice_of(bytes.ptr, n));
        if (!end)
            return 0;
        if (take_line(r, err) < 0)
            return -1;
        buf_clear(&r->line);
        r->cut = false;
        bytes = slice_of(end + 1, bytes.len - n - 1);
    }
    return 0;
}

int package_reader_end(struct package_reader *r, struct error *err)
{
    int rc = r->line.len ? take_line(r, err) : 0;

    if (rc == 0)
        rc = end_package(r, err);
    package_free(&r->now);
    buf_free(&r->line);
    free(r);
    return rc;
}

/* ---- os-release ---- */

/* NAME=VALUE with a value of one word, in quotes or not. */
static void take_os_line(struct slice line, const char *name, char **to)
{
    size_t len = strlen(name);
    struct slice value;

    if (line.len <= len || memcmp(line.ptr, name, len) != 0 || line.ptr[len] != '=')
        return;
    value = trim(slice_of(line.ptr + len + 1, line.len - len - 1));
    if (value.len >= 2 && (value.ptr[0] == '"' || value.ptr[0] == '\'') &&
        value.ptr[value.len - 1] == value.ptr[0])
        value = slice_of(value.ptr + 1, value.len - 2);
    if (value.len == 0 || value.len > 64)
        return;
    for (size_t i = 0; i < value.len; i++)
        if (!isalnum(value.ptr[i]) && !strchr("._-", value.ptr[i]))
            return;
    free(*to);
    *to = slice_dup_str(value);
}

void packages_read_os(struct slice text, struct package_list *to)
{
    while (text.len) {
        const uint8_t *end = memchr(text.ptr, '\n', text.len);
        size_t n = end ? (size_t)(end - text.ptr) : text.len;

        take_os_line(slice_of(text.ptr, n), "ID", &to->os_id);
        take_os_line(slice_of(text.ptr, n), "VERSION_ID", &to->os_version);
        text = slice_of(text.ptr + n + (end != NULL), text.len - n - (end != NULL));
    }
}
