#include "cli/table.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

void table_free(struct table *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->cells[i]);
    free(t->cells);
}

void table_cell(struct table *t, const char *fmt, ...)
{
    va_list ap;
    char *text;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        abort();
    va_end(ap);
    t->cells = xreallocarray(t->cells, t->count + 1, sizeof(*t->cells));
    t->cells[t->count++] = text;
}

/* Characters, not bytes: columns line up for names beyond ASCII, too. */
static size_t width_of(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += (*text & 0xc0) != 0x80;
    return n;
}

void table_put_text(const char *text)
{
    const uint8_t *p = (const uint8_t *)text;

    for (; *p; p++) {
        bool c1 = *p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0;

        putchar(c1 || *p < 0x20 || *p == 0x7f ? '?' : *p);
        p += c1;
    }
}

void table_print(const struct table *t)
{
    size_t width[TABLE_COLUMNS_MAX] = {0};

    for (size_t i = 0; i < t->count; i++)
        if (width_of(t->cells[i]) > width[i % t->columns])
            width[i % t->columns] = width_of(t->cells[i]);
    for (size_t row = 0; row < t->count; row += t->columns) {
        size_t last = t->columns;

        while (last > 1 && !t->cells[row + last - 1][0])
            last--;
        fputs("  ", stdout);
        for (size_t c = 0; c < last; c++) {
            const char *text = t->cells[row + c];
            size_t pad = c + 1 < last ? width[c] - width_of(text) + 2 : 0;

            table_put_text(text);
            printf("%*s", (int)pad, "");
        }
        putchar('\n');
    }
}
