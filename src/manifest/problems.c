/* Collecting what is wrong, and saying it. */
#include "manifest/loader.h"

#include <stdarg.h>
#include <strings.h>

#define PROBLEMS_MAX 100 /* a hostile file shall not fill the memory, nor a screen */

void manifest_problems_free(struct manifest_problems *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->items[i].path);
        free(p->items[i].text);
    }
    free(p->items);
    *p = (struct manifest_problems){0};
}

void problems_add(struct manifest_problems *p, bool warning, uint32_t line, uint32_t column,
                  const char *path, const char *text)
{
    if (warning)
        p->warnings++;
    else
        p->errors++;
    if (p->count == PROBLEMS_MAX)
        return;
    if (!p->items)
        p->items = xcalloc(PROBLEMS_MAX, sizeof(*p->items));
    p->items[p->count++] = (struct manifest_problem){
        .warning = warning,
        .line = line,
        .column = column,
        .path = xstrdup(path),
        .text = xstrdup(text),
    };
}

/* Stable, so that problems of one place stay in the order in which they were found. */
void problems_sort(struct manifest_problems *p)
{
    for (size_t i = 1; i < p->count; i++) {
        struct manifest_problem moving = p->items[i];
        size_t j = i;

        while (j > 0 &&
               (p->items[j - 1].line > moving.line ||
                (p->items[j - 1].line == moving.line && p->items[j - 1].column > moving.column))) {
            p->items[j] = p->items[j - 1];
            j--;
        }
        p->items[j] = moving;
    }
}

/* True for bytes that a terminal may act on: C0, DEL, and both bytes of a C1 control in UTF-8. */
static bool is_control(const uint8_t *text, size_t len, size_t i)
{
    uint8_t c = text[i];

    if (c == 0xc2)
        return i + 1 < len && text[i + 1] < 0xa0;
    if (c >= 0x80 && c < 0xa0)
        return i > 0 && text[i - 1] == 0xc2;
    return c < 0x20 || c == 0x7f;
}

static void print_visible(FILE *out, const char *text)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < len; i++) {
        if (is_control((const uint8_t *)text, len, i))
            fprintf(out, "\\x%02x", (uint8_t)text[i]);
        else
            putc(text[i], out);
    }
}

void manifest_problems_print(const struct manifest_problems *p, const char *file, FILE *out)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct manifest_problem *q = &p->items[i];

        print_visible(out, file);
        if (q->line)
            fprintf(out, ":%u:%u", q->line, q->column);
        fputs(q->warning ? ": warning: " : ": ", out);
        if (q->path[0]) {
            print_visible(out, q->path);
            fputs(": ", out);
        }
        print_visible(out, q->text);
        putc('\n', out);
    }
    if (p->errors + p->warnings > p->count) {
        print_visible(out, file);
        fprintf(out, ": and %zu more\n", p->errors + p->warnings - p->count);
    }
}

const struct manifest_place *manifest_where(const struct manifest *m, const void *member)
{
    for (size_t i = 0; i < m->place_count; i++)
        if (m->places[i].member == member)
            return &m->places[i];
    return NULL;
}

__attribute__((format(printf, 6, 0))) static void report(struct loader *l, bool warning,
                                                         uint32_t line, uint32_t column,
                                                         const char *path, const char *fmt,
                                                         va_list ap)
{
    char text[1024];

    vsnprintf(text, sizeof(text), fmt, ap);
    problems_add(l->problems, warning, line, column, path, text);
}

__attribute__((format(printf, 4, 0))) static void
report_at(struct loader *l, bool warning, const void *member, const char *fmt, va_list ap)
{
    const struct manifest_place *at = manifest_where(l->m, member);

    report(l, warning, at ? at->line : 0, at ? at->column : 0, at ? at->path : "", fmt, ap);
}

void loader_error(struct loader *l, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report(l, false, l->line, l->column, buf_cstr(&l->path), fmt, ap);
    va_end(ap);
}

void loader_warn(struct loader *l, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report(l, true, l->line, l->column, buf_cstr(&l->path), fmt, ap);
    va_end(ap);
}

void loader_error_at(struct loader *l, const void *member, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report_at(l, false, member, fmt, ap);
    va_end(ap);
}

void loader_warn_at(struct loader *l, const void *member, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report_at(l, true, member, fmt, ap);
    va_end(ap);
}

const char *shown(struct slice text, char out[SHOWN_SIZE])
{
    size_t used = 0, end = text.len < 60 ? text.len : 60;

    while (end < text.len && end > 0 && (text.ptr[end] & 0xc0) == 0x80)
        end--; /* not inside a character */
    for (size_t i = 0; i < end; i++) {
        if (is_control(text.ptr, text.len, i))
            used += (size_t)snprintf(out + used, 5, "\\x%02x", text.ptr[i]);
        else
            out[used++] = (char)text.ptr[i];
    }
    memcpy(out + used, "...", 3);
    out[used + (end < text.len ? 3 : 0)] = '\0';
    return out;
}
