#include "man/page.h"

#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <error.h>
#include <stdlib.h>

#define LINE_MAX_LEN 70 /* before escapes; linters want less than 80 */

struct page page_open(const char *dir, const char *name, int section, const char *summary)
{
    struct page p = {.path = xasprintf("%s/%s.%d", dir, name, section)};

    p.out = fopen(p.path, "we");
    if (!p.out)
        error(1, errno, "%s", p.path);
    fprintf(p.out, ".TH \"");
    for (const char *c = name; *c; c++)
        fputc(toupper((unsigned char)*c), p.out);
    fprintf(p.out, "\" %d \"\" \"Capsule " CAPSULE_VERSION "\" \"Capsule\"\n", section);
    /* No hyphenation: names of options and keys would be cut. */
    fprintf(p.out, ".nh\n.ad l\n.SH NAME\n%s \\- ", name);
    page_text(&p, slice_str(summary));
    return p;
}

void page_close(struct page *p)
{
    if (ferror(p->out) || fclose(p->out) != 0)
        error(1, errno, "%s", p->path);
    free(p->path);
}

/* One character; *bold toggles at backquotes. */
static void put_char(FILE *out, char c, bool *bold)
{
    if (c == '`') {
        *bold = !*bold;
        fputs(*bold ? "\\fB" : "\\fR", out);
    } else if (c == '\\') {
        fputs("\\e", out);
    } else if (c == '-' || c == '\'' || c == '^' || c == '~') {
        fputs(c == '-' ? "\\-" : c == '\'' ? "\\(aq" : c == '^' ? "\\(ha" : "\\(ti", out);
    } else {
        fputc(c, out);
    }
}

static void put_text(FILE *out, struct slice text)
{
    bool bold = false;

    for (size_t i = 0; i < text.len; i++)
        put_char(out, (char)text.ptr[i], &bold);
    if (bold)
        fputs("\\fR", out);
}

/* A line of source; a period or quote in front would be a command. */
static void put_line(FILE *out, struct slice line)
{
    if (line.len && (line.ptr[0] == '.' || line.ptr[0] == '\''))
        fputs("\\&", out);
    put_text(out, line);
    fputc('\n', out);
}

/* Where a line that is too long is best cut; its length when it is not. */
static size_t cut_at(struct slice line)
{
    for (size_t i = LINE_MAX_LEN; i > 0 && line.len > LINE_MAX_LEN; i--)
        if (line.ptr[i] == ' ')
            return i;
    return line.len;
}

static struct slice trim(struct slice line)
{
    for (; line.len && line.ptr[0] == ' '; line.len--)
        line.ptr++;
    while (line.len && line.ptr[line.len - 1] == ' ')
        line.len--;
    return line;
}

void page_text(struct page *p, struct slice text)
{
    struct slice line;

    p->at_top = p->at_top && text.len == 0;
    while (help_take_line(&text, &line)) {
        line = trim(line);
        for (size_t n = cut_at(line); line.len; n = cut_at(line)) {
            put_line(p->out, slice_of(line.ptr, n));
            line = trim(slice_of(line.ptr + n, line.len - n));
        }
    }
}

void page_heading(struct page *p, const char *heading)
{
    fprintf(p->out, ".SH %s\n", heading);
    p->at_top = true;
}

void page_subheading(struct page *p, struct slice heading)
{
    fputs(".SS ", p->out);
    put_text(p->out, heading);
    fputc('\n', p->out);
    p->at_top = true;
}

void page_paragraph(struct page *p, struct slice text)
{
    if (!p->at_top)
        fputs(".PP\n", p->out);
    page_text(p, text);
}

void page_example(struct page *p, struct slice lines)
{
    struct slice line;

    fputs(p->at_top ? ".nf\n" : ".PP\n.nf\n", p->out);
    while (help_take_line(&lines, &line))
        put_line(p->out, trim(line));
    fputs(".fi\n", p->out);
}

void page_item(struct page *p, struct slice tag)
{
    fputs(".TP\n\\fB", p->out);
    put_text(p->out, tag);
    fputs("\\fR\n", p->out);
}

void page_indent(struct page *p)
{
    fputs(".RS\n", p->out);
}

void page_outdent(struct page *p)
{
    fputs(".RE\n", p->out);
}

/* Puts the heading that a block needs before it, unless it is there. */
static void head(struct page *p, const char **last, const char *heading)
{
    if (*last != heading)
        page_heading(p, heading);
    *last = heading;
}

/* "Exit status: 0 ...": under the heading that readers look for. */
static bool is_exit_status(struct slice *text)
{
    static const char start[] = "Exit status: ";

    if (text->len < sizeof(start) || memcmp(text->ptr, start, sizeof(start) - 1) != 0)
        return false;
    *text = slice_of(text->ptr + sizeof(start) - 1, text->len - sizeof(start) + 1);
    return true;
}

void page_help(struct page *p, struct help_reader r)
{
    static const char options[] = "OPTIONS", actions[] = "ACTIONS", notes[] = "NOTES",
                      exit_status[] = "\"EXIT STATUS\"";
    const char *last = NULL;
    struct help_block b;

    while (help_next(&r, &b)) {
        switch (b.kind) {
        case HELP_ACTION:
            head(p, &last, actions);
            page_subheading(p, b.tag);
            page_text(p, b.body);
            break;
        case HELP_SECTION:
            page_subheading(p, b.tag);
            break;
        case HELP_ITEM:
        case HELP_OPTION:
            if (last != actions)
                head(p, &last, options);
            page_item(p, b.tag);
            page_text(p, b.body);
            break;
        case HELP_EXAMPLE:
            page_example(p, b.body);
            break;
        case HELP_TEXT:
            if (is_exit_status(&b.body))
                head(p, &last, exit_status);
            else if (last == options || last == exit_status)
                head(p, &last, notes);
            page_paragraph(p, b.body);
            break;
        }
    }
}
