#include "cli/complete.h"

#include "base/xdg.h"
#include "cli/cli.h"
#include "cli/help_text.h"
#include "launch/launcher.h"
#include "oci/store.h"
#include "runs/registry.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Where the cursor is. */
struct place {
    const char *word;             /* what is typed of the word */
    const char *glued;            /* its start up to "=", when it is --option=VALUE; else "" */
    size_t glued_len;             /* of that start */
    const struct subcommand *cmd; /* NULL: among the global options */
    struct slice action;          /* name of its action; empty while there is none */
    struct slice action_tag;
};

/* ---- printing ---- */

static void candidate(const struct place *p, struct slice word, struct slice about)
{
    size_t typed = strlen(p->word);
    struct slice line;

    if (word.len < typed || memcmp(word.ptr, p->word, typed) != 0)
        return;
    printf("%.*s%.*s", (int)p->glued_len, p->glued, (int)word.len, (const char *)word.ptr);
    if (help_take_line(&about, &line))
        printf("\t%.*s%s", (int)line.len, (const char *)line.ptr, about.len ? " ..." : "");
    putchar('\n');
}

static void candidate_str(const struct place *p, const char *word, const char *about)
{
    candidate(p, slice_str(word), slice_str(about));
}

static void stored_images(const struct place *p)
{
    struct error err = {0};
    AUTO_FREE char *dir = xdg_dir(XDG_DATA, NULL, "the image store", &err);
    AUTO_STORE struct store *s = NULL;
    struct stored_image *images = NULL;
    size_t count = 0;

    /* To complete a word must not make a store. */
    if (!dir || access(dir, R_OK) != 0)
        return;
    s = store_open(dir, &err);
    if (!s || store_list(s, &images, &count, &err) < 0)
        return;
    for (size_t i = 0; i < count; i++)
        if (images[i].name[0])
            candidate_str(p, images[i].name, "");
    free(images);
}

/* Names, or for want of one IDs: of what can be stopped only what lives. */
static void known_runs(const struct place *p)
{
    bool stop = p->cmd && strcmp(p->cmd->name, "stop") == 0;
    AUTO_RUN_LIST struct run_list all = {0};
    struct error err = {0};
    AUTO_FREE char *runs = runs_dir(&err);

    if (!runs || runs_list(runs, &all, &err) < 0)
        return;
    for (size_t i = 0; i < all.count; i++) {
        const struct run_record *r = &all.items[i].record;

        if (!stop || run_state_lives(all.items[i].state))
            candidate_str(p, r->name[0] ? r->name : r->id, r->image);
    }
}

static void launcher_names(const struct place *p)
{
    candidate_str(p, "auto", "the first that suits this machine");
    for (const struct launcher_ops *const *l = launchers_all; *l; l++)
        candidate_str(p, (*l)->name, (*l)->summary);
}

/* ---- values ---- */

/* Whether `text`, cut at what is no letter, has a word that is or, given "*", ends in `what`. */
static bool mentions(struct slice text, const char *what)
{
    size_t n = strlen(what);

    for (size_t i = 0; i + n <= text.len; i++)
        if (memcmp(text.ptr + i, what, n) == 0 && (i == 0 || !isalpha(text.ptr[i - 1])) &&
            (i + n == text.len || !isalpha(text.ptr[i + n])))
            return true;
    return false;
}

/* What can stand where help calls it `name`: "FILE|-", "IMAGE", "DIR". */
static void values_called(const struct place *p, struct slice name)
{
    static const char *const files[] = {"FILE", "PATH", "PEM", "OUT", "PEER"};

    if (mentions(name, "IMAGE"))
        stored_images(p);
    if (mentions(name, "RUN"))
        known_runs(p);
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        if (mentions(name, files[i])) {
            puts(":files");
            return;
        }
    if (mentions(name, "DIR"))
        puts(":dirs");
}

/* The words among which an explanation lets choose: "text (default) or json". */
static void values_of(const struct place *p, const struct help_block *o)
{
    if (slice_equal_str(o->name, "launcher")) {
        launcher_names(p);
    } else if (slice_equal_str(o->name, "log-format")) {
        candidate_str(p, "text", "");
        candidate_str(p, "json", "");
    } else if (slice_equal_str(o->name, "root-format")) {
        candidate_str(p, "erofs", "compressed, mounted where it lies");
        candidate_str(p, "cpio", "unpacked into memory at boot");
    } else {
        values_called(p, o->value);
    }
}

/* ---- options ---- */

static struct help_reader reader_at(const struct place *p)
{
    return p->cmd ? help_read(p->cmd->name, p->cmd->synopsis, p->cmd->help)
                  : help_read("", "", cli_global_help);
}

/* The next option that may be given here. */
static bool next_option(const struct place *p, struct help_reader *r, bool *ours,
                        struct help_block *o)
{
    while (help_next(r, o)) {
        if (o->kind == HELP_ACTION)
            *ours = slice_equal(o->name, p->action);
        else if (o->kind == HELP_SECTION)
            *ours = help_section_applies(o->tag, p->action_tag);
        else if (o->kind == HELP_OPTION && *ours)
            return true;
    }
    return false;
}

/* The option that `word` names, as --long (up to an "=") or -l. */
static bool find_option(const struct place *p, const char *word, struct help_block *o)
{
    struct slice name = slice_of(word, strcspn(word, "="));
    struct help_reader r = reader_at(p);
    bool ours = true;

    while (next_option(p, &r, &ours, o)) {
        if (name.len > 2 && name.ptr[1] == '-'
                ? slice_equal(o->name, slice_of(name.ptr + 2, name.len - 2))
                : name.len == 2 && o->letter == (char)name.ptr[1])
            return true;
    }
    return false;
}

static void print_options(const struct place *p)
{
    struct help_reader r = reader_at(p);
    struct help_block o;
    bool ours = true;
    char text[64];

    while (next_option(p, &r, &ours, &o)) {
        snprintf(text, sizeof(text), "--%.*s", (int)o.name.len, (const char *)o.name.ptr);
        if (o.name.len)
            candidate(p, slice_str(text), o.body);
    }
    if (p->cmd)
        candidate_str(p, "--help", "what the command does, and its options");
}

/* ---- words ---- */

static void print_commands(const struct place *p)
{
    for (const struct subcommand *const *c = cli_subcommands; *c; c++)
        candidate_str(p, (*c)->name, (*c)->summary);
}

/* Prints the actions of the command; false when it has none. */
static bool print_actions(const struct place *p)
{
    struct help_reader r = reader_at(p);
    struct help_block b;
    bool any = false;

    while (help_next(&r, &b)) {
        if (b.kind != HELP_ACTION)
            continue;
        any = true;
        candidate(p, b.name, (struct slice){0});
    }
    return any;
}

static void find_action(struct place *p, const char *word)
{
    struct help_reader r = reader_at(p);
    struct help_block b;

    while (help_next(&r, &b))
        if (b.kind == HELP_ACTION && slice_equal_str(b.name, word)) {
            p->action = b.name;
            p->action_tag = b.tag;
        }
}

/* Goes behind the bracket that closes the one which `word` begins with. */
static void skip_group(struct slice *synopsis, struct slice word)
{
    char closing = word.ptr[0] == '(' ? ')' : ']';

    while (!memchr(word.ptr, closing, word.len) && help_take_word(synopsis, &word))
        continue;
}

/* What a synopsis names apart from options and their values. */
static void print_operands_of(const struct place *p, struct slice synopsis)
{
    struct slice word;
    bool value = false;

    while (help_take_word(&synopsis, &word)) {
        bool bracket = word.ptr[0] == '[' || word.ptr[0] == '(';
        bool option = word.len > (size_t)bracket + 1 && word.ptr[bracket] == '-';

        if (option && bracket)
            skip_group(&synopsis, word);
        else if (!option && !value)
            values_called(p, word);
        value = option && !bracket;
    }
}

static void print_operands(const struct place *p)
{
    if (p->action.len)
        print_operands_of(p, p->action_tag);
    else if (!print_actions(p))
        print_operands_of(p, slice_str(p->cmd->synopsis));
}

/*
 * Walks over what stands before the cursor. Returns true when the cursor is at the value of *o;
 * *ended is set behind "--".
 */
static bool walk(struct place *p, int argc, char **argv, struct help_block *o, bool *ended)
{
    for (int i = 0; i + 1 < argc; i++) {
        const char *word = argv[i];

        if (!*ended && strcmp(word, "--") == 0)
            *ended = true;
        else if (!*ended && word[0] == '-' && word[1]) {
            if (!find_option(p, word, o) || !o->value.len || strchr(word, '='))
                continue;
            if (i + 2 == argc)
                return true;
            i++;
        } else if (!p->cmd) {
            p->cmd = cli_find(word);
            if (!p->cmd)
                return false;
        } else if (!p->action.len) {
            find_action(p, word);
        }
    }
    return false;
}

static bool is_help(int argc, char **argv)
{
    return argc == 2 && strcmp(argv[0], "help") == 0;
}

int complete_print(int argc, char **argv)
{
    struct place p = {.word = argc ? argv[argc - 1] : "", .glued = ""};
    struct help_block o;
    bool ended = false;
    bool at_value = walk(&p, argc, argv, &o, &ended);
    const char *equals = strchr(p.word, '=');

    if (at_value) {
        values_of(&p, &o);
    } else if (is_help(argc, argv)) {
        print_commands(&p);
    } else if (!ended && strncmp(p.word, "--", 2) == 0 && equals) {
        if (!find_option(&p, p.word, &o))
            return 0;
        p.glued = p.word;
        p.glued_len = (size_t)(equals + 1 - p.word);
        p.word = equals + 1;
        values_of(&p, &o);
    } else if (!ended && p.word[0] == '-') {
        print_options(&p);
    } else if (p.cmd) {
        print_operands(&p);
    } else {
        print_commands(&p);
        candidate_str(&p, "help", "the same as COMMAND --help");
    }
    return 0;
}
