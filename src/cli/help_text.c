#include "cli/help_text.h"

#include <ctype.h>

/* From here on, a line goes on explaining what is above it. */
#define CONTINUATION 8

static struct slice skip(struct slice s, size_t n)
{
    return slice_of(s.ptr + n, s.len - n);
}

static size_t indent_of(struct slice line)
{
    size_t n = 0;

    while (n < line.len && line.ptr[n] == ' ')
        n++;
    return n;
}

static struct slice trim(struct slice s)
{
    s = skip(s, indent_of(s));
    while (s.len && s.ptr[s.len - 1] == ' ')
        s.len--;
    return s;
}

bool help_take_line(struct slice *text, struct slice *line)
{
    const uint8_t *end;

    if (text->len == 0)
        return false;
    end = memchr(text->ptr, '\n', text->len);
    *line = slice_of(text->ptr, end ? (size_t)(end - text->ptr) : text->len);
    *text = skip(*text, line->len + (end ? 1 : 0));
    return true;
}

bool help_take_word(struct slice *text, struct slice *word)
{
    *text = trim(*text);
    if (text->len == 0)
        return false;
    word->ptr = text->ptr;
    word->len = 0;
    while (word->len < text->len && text->ptr[word->len] != ' ')
        word->len++;
    *text = skip(*text, word->len);
    return true;
}

/* Whether `word` stands in `text` between characters that are not of names. */
static bool has_word(struct slice text, struct slice word)
{
    for (size_t i = 0; word.len && i + word.len <= text.len; i++) {
        const uint8_t *at = text.ptr + i;
        bool starts = i == 0 || !(isalnum(at[-1]) || at[-1] == '-');
        bool ends = i + word.len == text.len || !(isalnum(at[word.len]) || at[word.len] == '-');

        if (starts && ends && memcmp(at, word.ptr, word.len) == 0)
            return true;
    }
    return false;
}

bool help_section_applies(struct slice title, struct slice action_tag)
{
    struct slice first = {0};
    uint8_t upper[32];

    if (!help_take_word(&title, &first) || first.len > sizeof(upper))
        return false;
    for (size_t i = 0; i < first.len; i++)
        upper[i] = (uint8_t)toupper(first.ptr[i]);
    return has_word(action_tag, slice_of(upper, first.len));
}

struct help_reader help_read(const char *command, const char *synopsis, const char *help)
{
    return (struct help_reader){command, synopsis, slice_str(help ? help : ""), false};
}

/* Splits "TAG  explanation" at the first gap of two blanks; false when there is none. */
static bool split_at_gap(struct slice line, struct slice *tag, struct slice *rest)
{
    for (size_t i = 0; i + 1 < line.len; i++)
        if (line.ptr[i] == ' ' && line.ptr[i + 1] == ' ') {
            *tag = slice_of(line.ptr, i);
            *rest = trim(skip(line, i));
            return true;
        }
    return false;
}

static bool is_option(struct slice line)
{
    size_t n = indent_of(line);

    return n >= 2 && n < CONTINUATION && n + 1 < line.len && line.ptr[n] == '-' &&
           line.ptr[n + 1] != ' ';
}

/* "-o, --output FILE  text", "--strict  text", "-v  text"; a blank may do where FILE is long. */
static void parse_option(struct slice line, struct help_block *b)
{
    struct slice left = line, word;

    b->kind = HELP_OPTION;
    help_take_word(&left, &word);
    if (word.len >= 2 && word.ptr[1] != '-') {
        bool more = word.len == 3 && word.ptr[2] == ',';

        b->letter = (char)word.ptr[1];
        if (more)
            help_take_word(&left, &word);
    }
    if (word.len > 2 && word.ptr[1] == '-')
        b->name = skip(word, 2);
    /* A value follows after one blank, an explanation after more. */
    if (left.len > 1 && left.ptr[1] != ' ')
        help_take_word(&left, &b->value);
    b->tag = slice_of(line.ptr, line.len - left.len);
    b->body = trim(left);
}

/* The line of an action that begins with the command's name, without that. */
static bool starts_action(const struct help_reader *r, struct slice line, struct slice *tag)
{
    struct slice word, left = line;

    if (indent_of(line) != 0 || !help_take_word(&left, &word) || !slice_equal_str(word, r->command))
        return false;
    *tag = trim(left);
    return help_take_word(&left, &word) && has_word(slice_str(r->synopsis), word);
}

static void parse_entry(const struct help_reader *r, struct slice line, struct help_block *b)
{
    struct slice tag = {0}, rest, left;

    if (starts_action(r, line, &tag)) {
        b->kind = HELP_ACTION;
    } else if (indent_of(line) == 2 && split_at_gap(skip(line, 2), &tag, &rest)) {
        b->body = rest;
        b->kind = islower(tag.ptr[0]) ? HELP_ACTION : HELP_ITEM;
    } else {
        b->kind = indent_of(line) == 0 || r->in_action ? HELP_TEXT : HELP_EXAMPLE;
        b->body = line;
        return;
    }
    b->tag = left = tag;
    help_take_word(&left, &b->name);
    /* A word that the synopsis does not know is no action but an aligned example. */
    if (b->kind == HELP_ACTION && !has_word(slice_str(r->synopsis), b->name)) {
        *b = (struct help_block){.kind = HELP_EXAMPLE, .body = line};
    }
}

static bool is_section(struct slice line, struct slice next_lines)
{
    struct slice next;

    return indent_of(line) == 0 && line.ptr[line.len - 1] == ':' &&
           help_take_line(&next_lines, &next) && is_option(next);
}

/* Whether `line` belongs to the block that `b` has begun. */
static bool goes_on(const struct help_reader *r, const struct help_block *b, struct slice line,
                    struct slice next_lines)
{
    struct help_block other = {0};

    if (line.len == 0)
        return false;
    if (b->kind == HELP_OPTION || b->kind == HELP_ITEM || (b->kind == HELP_ACTION && b->body.len))
        return indent_of(line) >= CONTINUATION;
    if (b->kind == HELP_EXAMPLE)
        return indent_of(line) > 0;
    if (b->kind != HELP_TEXT || is_option(line) || is_section(line, next_lines))
        return false;
    parse_entry(r, line, &other);
    return other.kind == HELP_TEXT;
}

bool help_next(struct help_reader *r, struct help_block *out)
{
    struct slice line, left;

    *out = (struct help_block){0};
    do
        if (!help_take_line(&r->left, &line))
            return false;
    while (line.len == 0);
    if (is_option(line)) {
        parse_option(trim(line), out);
    } else if (is_section(line, r->left)) {
        out->kind = HELP_SECTION;
        out->tag = slice_of(line.ptr, line.len - 1);
    } else {
        parse_entry(r, line, out);
    }
    if (out->kind == HELP_ACTION || out->kind == HELP_SECTION)
        r->in_action = true;
    left = r->left;
    while (help_take_line(&left, &line) && goes_on(r, out, line, left)) {
        if (!out->body.len)
            out->body = line;
        out->body.len = (size_t)(line.ptr + line.len - out->body.ptr);
        r->left = left;
    }
    return true;
}
