/*
 * The help texts of subcommands, taken apart: they are the one place that names operands, actions
 * and options for a reader, and man pages and completion are made from them. What a text may hold,
 * by its indentation (a unit test holds all of them against the parsers):
 *
 *     attest verify FILE|- [OPTION]...     an action: the command's name, then a word of its
 * synopsis verify FILE      what it does      the same on one line Signer options: a section, for
 * the actions that mention SIGNER -o, --output FILE  what it means   an option; what it means may
 * start on the next line
 *           --strict       what it means   (8 spaces or more continue)
 *       IMAGE            what it is        an operand
 *     Text that flows.
 *       An example, or, below an action, text that flows.
 */
#ifndef CAPSULE_CLI_HELP_TEXT_H
#define CAPSULE_CLI_HELP_TEXT_H

#include "base/slice.h"

enum help_kind {
    HELP_TEXT,
    HELP_EXAMPLE,
    HELP_ITEM,
    HELP_OPTION,
    HELP_ACTION,
    HELP_SECTION
};

/* Slices point into the help text. */
struct help_block {
    enum help_kind kind;
    /* ACTION, ITEM, OPTION: what is explained ("-f, --file FILE"); SECTION: its title */
    struct slice tag;
    struct slice name;  /* ACTION, ITEM: the first word; OPTION: the long name, without dashes */
    char letter;        /* OPTION: the short name, or '\0' */
    struct slice value; /* OPTION: how its value is called; empty when it takes none */
    struct slice body;  /* the explanation: lines with their indentation */
};

struct help_reader {
    const char *command; /* name and synopsis of the command */
    const char *synopsis;
    struct slice left;
    bool in_action;
};

/* Starts at the top of `help`, which may be NULL. */
struct help_reader help_read(const char *command, const char *synopsis, const char *help);
/* The next block, or false at the end. */
bool help_next(struct help_reader *r, struct help_block *out);

/* Takes one line, or one blank-separated word, off the front; false when nothing is left. */
bool help_take_line(struct slice *text, struct slice *line);
bool help_take_word(struct slice *text, struct slice *word);
/* Whether a section is for the action with this tag: "Signer options" for "... SIGNER...". */
bool help_section_applies(struct slice title, struct slice action_tag);

#endif
