/* Tables for people, as `explain` and `mount ls` print them. */
#ifndef CAPSULE_CLI_TABLE_H
#define CAPSULE_CLI_TABLE_H

#include "base/mem.h"

#define TABLE_COLUMNS_MAX 8

/* Filled cell by cell, row by row; set `columns` first. Owns its cells. */
struct table {
    char **cells;
    size_t columns; /* 1 to TABLE_COLUMNS_MAX */
    size_t count;
};

void table_free(struct table *t);
#define AUTO_TABLE CLEANUP(table_free)

/* Adds a cell; an empty one at a row's end leaves no blanks behind. */
void table_cell(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/*
 * Prints the rows to standard output, two blanks in front and between, each column as wide as its
 * widest cell.
 */
void table_print(const struct table *t);
/* Prints text that may be a stranger's: what a terminal would act on is shown as "?". */
void table_put_text(const char *text);

#endif
