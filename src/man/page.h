/* Man pages in the man(7) macros: a file a page, parts in the order of the calls. */
#ifndef CAPSULE_MAN_PAGE_H
#define CAPSULE_MAN_PAGE_H

#include "base/slice.h"
#include "cli/help_text.h"

#include <stdio.h>

struct page {
    FILE *out;
    char *path;
    bool at_top; /* right below a heading */
};

/* Begins DIR/NAME.SECTION with its NAME part. Problems end the program: it runs in builds only. */
struct page page_open(const char *dir, const char *name, int section, const char *summary);
void page_close(struct page *p);

/*
 * Text is escaped; `words` in backquotes come out bold, and line ends and indentation count as
 * blanks.
 */
void page_text(struct page *p, struct slice text);
void page_heading(struct page *p, const char *heading);
void page_subheading(struct page *p, struct slice heading);
void page_paragraph(struct page *p, struct slice text);
void page_example(struct page *p, struct slice lines);
/* An explained word, in bold; what follows it up to the next part is its explanation. */
void page_item(struct page *p, struct slice tag);
/* Parts until page_outdent() belong to the item before. */
void page_indent(struct page *p);
void page_outdent(struct page *p);

/* The parts of a help text, under headings of their own. */
void page_help(struct page *p, struct help_reader r);

#endif
