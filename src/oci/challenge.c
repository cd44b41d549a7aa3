#include "oci/challenge.h"

void challenge_free(struct challenge *c)
{
    free(c->realm);
    free(c->service);
    free(c->scope);
    *c = (struct challenge){0};
}

static bool is_token_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool at(const struct reader *r, char c)
{
    return r->pos < r->end && *r->pos == (uint8_t)c;
}

static void skip(struct reader *r, const char *set)
{
    while (r->pos < r->end && *r->pos && strchr(set, *r->pos))
        r->pos++;
}

static struct slice token(struct reader *r)
{
    const uint8_t *start = r->pos;

    while (r->pos < r->end && is_token_char(*r->pos))
        r->pos++;
    return slice_of(start, (size_t)(r->pos - start));
}

/* A token or a quoted string, whose backslashes are taken out. False when malformed. */
static bool value(struct reader *r, struct buf *out)
{
    if (!at(r, '"')) {
        struct slice s = token(r);

        return s.len > 0 && buf_append(out, s.ptr, s.len) == 0;
    }
    for (r->pos++; r->pos < r->end && *r->pos != '"'; r->pos++) {
        if (*r->pos == '\\' && ++r->pos == r->end)
            return false;
        if (*r->pos < 0x20 || *r->pos == 0x7f || buf_append_byte(out, *r->pos) < 0)
            return false;
    }
    if (r->pos == r->end)
        return false;
    r->pos++;
    return true;
}

/* One NAME=VALUE. Something told twice is malformed. */
static bool parameter(struct reader *r, struct slice name, struct challenge *c)
{
    AUTO_BUF struct buf text = BUF(CHALLENGE_TEXT_MAX);
    char **to = NULL;

    skip(r, " \t");
    if (!value(r, &text))
        return false;
    if (slice_equal_str_nocase(name, "realm"))
        to = &c->realm;
    else if (slice_equal_str_nocase(name, "service"))
        to = &c->service;
    else if (slice_equal_str_nocase(name, "scope"))
        to = &c->scope;
    if (!to)
        return true;
    if (*to)
        return false;
    *to = slice_dup_str(buf_slice(&text));
    return true;
}

/*
 * The parameters of one challenge, up to the end or to the next scheme, which a token without "="
 * begins. False when malformed.
 */
static bool parameters(struct reader *r, struct challenge *c)
{
    for (;;) {
        struct reader before;
        struct slice name;

        skip(r, " \t,");
        before = *r;
        name = token(r);
        if (name.len == 0)
            return r->pos == r->end;
        skip(r, " \t");
        if (!at(r, '=')) {
            *r = before;
            return true;
        }
        r->pos++;
        if (!parameter(r, name, c))
            return false;
    }
}

int challenge_parse(struct slice text, struct challenge *out, struct error *err)
{
    struct reader r = reader_of(text);
    bool basic = false;

    if (text.len > CHALLENGE_TEXT_MAX)
        return error_set(err, ERR_LIMIT, "a WWW-Authenticate field of more than %d bytes",
                         CHALLENGE_TEXT_MAX);
    for (;;) {
        AUTO_CHALLENGE struct challenge c = {.scheme = CHALLENGE_BEARER};
        struct slice scheme;

        skip(&r, " \t,");
        if (r.pos == r.end)
            break;
        scheme = token(&r);
        if (scheme.len == 0 || !parameters(&r, &c))
            return error_set(err, ERR_INVALID, "a malformed WWW-Authenticate field");
        if (slice_equal_str_nocase(scheme, "Bearer") && c.realm) {
            *out = c;
            c = (struct challenge){0};
            return 0;
        }
        basic = basic || slice_equal_str_nocase(scheme, "Basic");
    }
    if (!basic)
        return error_set(err, ERR_UNSUPPORTED,
                         "it asks for neither Basic nor Bearer authentication");
    *out = (struct challenge){.scheme = CHALLENGE_BASIC};
    return 0;
}
