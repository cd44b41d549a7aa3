#include "codec/cmdline.h"

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The next word, quotes and all; false at the end. */
static bool next_word(struct reader *r, struct slice *word)
{
    const uint8_t *start;
    bool quoted = false;

    while (r->pos < r->end && is_space(*r->pos))
        r->pos++;
    start = r->pos;
    while (r->pos < r->end && (quoted || !is_space(*r->pos))) {
        if (*r->pos == '"')
            quoted = !quoted;
        r->pos++;
    }
    *word = slice_of(start, (size_t)(r->pos - start));
    return word->len > 0;
}

struct cmdline_words cmdline_parse(struct slice text)
{
    static const size_t verbose_len = sizeof(CMDLINE_VERBOSE) - 1;
    struct cmdline_words words = {0};
    struct reader r = reader_of(text);
    struct slice w;

    while (next_word(&r, &w)) {
        if (slice_equal_str(w, CMDLINE_SOFT_NSM))
            words.soft_nsm = true;
        else if (slice_equal_str(w, CMDLINE_LOG_JSON))
            words.log_json = true;
        else if (slice_equal_str(w, CMDLINE_WHOLE_CLOSE))
            words.no_half_close = true;
        else if (w.len == verbose_len + 1 && memcmp(w.ptr, CMDLINE_VERBOSE, verbose_len) == 0 &&
                 (w.ptr[verbose_len] == '1' || w.ptr[verbose_len] == '2'))
            words.verbosity = w.ptr[verbose_len] - '0';
    }
    return words;
}
