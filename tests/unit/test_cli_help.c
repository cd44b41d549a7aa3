/*
 * The help texts against the parsers: man pages and completion are made from the texts, so every
 * option must be in both, with its short form, and with a value in both or in neither. The tables
 * are what the subcommands hand to getopt_long(), which the linker leads here (--wrap).
 */
#include "cli/cli.h"
#include "cli/help_text.h"

#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct option *seen_options;
static const char *seen_letters;

int __wrap_getopt_long(int argc, char *const *argv, const char *letters,
                       const struct option *options, int *index);
int __wrap_getopt_long(int argc, char *const *argv, const char *letters,
                       const struct option *options, int *index)
{
    (void)argc;
    (void)argv;
    (void)index;
    seen_options = options;
    seen_letters = letters;
    optind = 1;
    optopt = '?';
    return '?'; /* ends the subcommand with an error */
}

/* Options that help does not name on purpose. */
static bool hidden(const char *command, const char *option)
{
    return strcmp(command, "build") == 0 && strcmp(option, "eif-only") == 0; /* the reference's */
}

static const struct option *in_parser(struct slice name)
{
    for (const struct option *o = seen_options; o->name; o++)
        if (slice_equal_str(name, o->name))
            return o;
    return NULL;
}

static bool parser_takes_letter(char letter, bool with_value)
{
    const char *at = letter == ':' ? NULL : strchr(seen_letters, letter);

    return at && (at[1] == ':') == with_value;
}

/* One option of the help text is one of the parser's. */
static void check_option(const char *command, const struct help_block *b)
{
    const struct option *o = in_parser(b->name);
    bool with_value = b->value.len > 0;

    if (!o)
        fail_msg("%s: the parser does not know \"%.*s\"", command, (int)b->tag.len,
                 (const char *)b->tag.ptr);
    if ((o->has_arg == required_argument) != with_value)
        fail_msg("%s: --%s: help and parser differ about its value", command, o->name);
    if (b->letter && !parser_takes_letter(b->letter, with_value))
        fail_msg("%s: the parser does not know -%c", command, b->letter);
    assert_true(b->body.len > 0);
}

/* Counts the options of an action (or of a command without any) that are named `name`. */
static int in_help(const struct subcommand *cmd, struct slice action, struct slice tag,
                   const char *name, char letter)
{
    struct help_reader r = help_read(cmd->name, cmd->synopsis, cmd->help);
    struct help_block b;
    bool ours = true;
    int count = 0;

    while (help_next(&r, &b)) {
        if (b.kind == HELP_ACTION)
            ours = slice_equal(b.name, action);
        else if (b.kind == HELP_SECTION)
            ours = help_section_applies(b.tag, tag);
        else if (b.kind == HELP_OPTION && ours && !name && !letter)
            check_option(cmd->name, &b);
        else if (b.kind == HELP_OPTION && ours)
            count += name ? slice_equal_str(b.name, name) : b.letter == letter;
    }
    return count;
}

static void check(const struct subcommand *cmd, struct slice action, struct slice tag)
{
    AUTO_FREE char *word = slice_dup_str(action);
    char *argv[] = {(char *)(uintptr_t)cmd->name, word, NULL};
    struct error err = {0};

    seen_options = NULL;
    assert_int_equal(cmd->run(action.len ? 2 : 1, argv, &err), -1);
    if (!seen_options)
        fail_msg("%s %s: no option was parsed: %s", cmd->name, word, err.msg);
    in_help(cmd, action, tag, NULL, '\0');
    for (const struct option *o = seen_options; o->name; o++)
        if (in_help(cmd, action, tag, o->name, '\0') != !hidden(cmd->name, o->name))
            fail_msg("%s %s: --%s is not in the help text once", cmd->name, word, o->name);
    for (const char *l = seen_letters; *l; l++)
        if (*l != ':' && *l != '+' && in_help(cmd, action, tag, NULL, *l) != 1)
            fail_msg("%s %s: -%c is not in the help text once", cmd->name, word, *l);
}

static void test_every_option(void **state)
{
    (void)state;
    for (const struct subcommand *const *c = cli_subcommands; *c; c++) {
        struct help_reader r = help_read((*c)->name, (*c)->synopsis, (*c)->help);
        struct help_block b;
        bool actions = false;

        while (help_next(&r, &b))
            if (b.kind == HELP_ACTION) {
                check(*c, b.name, b.tag);
                actions = true;
            }
        if (!actions)
            check(*c, (struct slice){0}, (struct slice){0});
    }
}

static void expect_block(struct help_reader *r, enum help_kind kind, const char *tag,
                         const char *body)
{
    struct help_block b;

    assert_true(help_next(r, &b));
    assert_int_equal(b.kind, kind);
    if (!slice_equal_str(b.tag, tag) || !slice_equal_str(b.body, body))
        fail_msg("got \"%.*s\", \"%.*s\" instead of \"%s\", \"%s\"", (int)b.tag.len,
                 (const char *)b.tag.ptr, (int)b.body.len, (const char *)b.body.ptr, tag, body);
}

static void test_forms(void **state)
{
    struct help_reader r = help_read("cmd", "one FILE | two",
                                     "Flows\nand flows.\n  # example\n\n"
                                     "  IMAGE    a name\n"
                                     "cmd one FILE [SOME OPTION]\n"
                                     "  Below an action.\n"
                                     "  -o, --output FILE  there\n"
                                     "                     - or here\n"
                                     "      --long NAME\n"
                                     "                     next line\n"
                                     "  -v  letter\n"
                                     "  two FILE   same line\n"
                                     "             and on\n"
                                     "\n"
                                     "cmd three: flows too.\n"
                                     "Some options:\n"
                                     "      --unix-socket PATH one blank\n"
                                     "      --flag  none");
    struct help_block b;

    (void)state;
    expect_block(&r, HELP_TEXT, "", "Flows\nand flows.");
    expect_block(&r, HELP_EXAMPLE, "", "  # example");
    expect_block(&r, HELP_ITEM, "IMAGE", "a name");
    expect_block(&r, HELP_ACTION, "one FILE [SOME OPTION]", "");
    expect_block(&r, HELP_TEXT, "", "  Below an action.");
    expect_block(&r, HELP_OPTION, "-o, --output FILE", "there\n                     - or here");
    expect_block(&r, HELP_OPTION, "--long NAME", "                     next line");
    expect_block(&r, HELP_OPTION, "-v", "letter");
    expect_block(&r, HELP_ACTION, "two FILE", "same line\n             and on");
    expect_block(&r, HELP_TEXT, "", "cmd three: flows too.");
    expect_block(&r, HELP_SECTION, "Some options", "");
    expect_block(&r, HELP_OPTION, "--unix-socket PATH", "one blank");
    assert_true(help_next(&r, &b));
    assert_true(b.kind == HELP_OPTION && slice_equal_str(b.name, "flag") && b.value.len == 0);
    assert_false(help_next(&r, &b));
    assert_true(help_section_applies(slice_str("Some options"), slice_str("one [SOME]...")));
    assert_false(help_section_applies(slice_str("Some options"), slice_str("one AWESOME")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_option),
        cmocka_unit_test(test_forms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
