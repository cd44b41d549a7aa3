/*
 * Logging in: Basic, or a token from where the registry says (distribution project, "Token
 * Authentication Specification"), with the user's credentials where there are any.
 */
#include "base/log.h"
#include "base/text.h"
#include "oci/challenge.h"
#include "oci/credentials.h"
#include "oci/fetch.h"

#include <jansson.h>
#include <stdio.h>

#define TOKEN_ANSWER_MAX ((size_t)128 << 10)

/* "Authorization: SCHEME TEXT" for the next requests. */
static int set_authorization(struct registry *r, const char *scheme, const char *text,
                             struct error *err)
{
    for (const char *p = text; *p; p++)
        if (*p <= 0x20 || *p >= 0x7f)
            return error_set(err, ERR_INVALID, "a token with characters that no header can have");
    buf_clear(&r->authorization);
    if (buf_printf(&r->authorization, "Authorization: %s %s", scheme, text) < 0)
        return error_set(err, ERR_LIMIT, "a token of more than %zu bytes", r->authorization.max);
    r->logins++;
    return 0;
}

static int basic_line(const struct credentials *c, struct buf *out, struct error *err)
{
    if (base64_encode(buf_slice(&c->pair), out) < 0)
        return error_set(err, ERR_LIMIT, "user and password are too long");
    return 0;
}

static int basic(struct registry *r, const struct credentials *c, struct error *err)
{
    AUTO_BUF struct buf text = BUF_SECRET(2 * CREDENTIALS_MAX);

    if (!c->found) {
        error_set(err, ERR_DENIED, "the registry wants a login, and there is none for %s", r->host);
        return error_hint(err, "log in with `docker login %s` or `podman login %s`", r->host,
                          r->host);
    }
    if (basic_line(c, &text, err) < 0)
        return -1;
    return set_authorization(r, "Basic", buf_cstr(&text), err);
}

static int add_scope(CURLU *u, const char *scope)
{
    AUTO_FREE char *text = xasprintf("scope=%s", scope);

    return curl_url_set(u, CURLUPART_QUERY, text, CURLU_APPENDQUERY | CURLU_URLENCODE) ? -1 : 0;
}

/*
 * What the token is to allow. A push asks for all it will need at once: the challenge of its first
 * question is about pulling alone.
 */
static int add_scopes(const struct registry *r, const char *told, CURLU *u)
{
    AUTO_FREE char *ours = xasprintf("repository:%s:", r->name);
    AUTO_FREE char *all = xasprintf("%spull%s", ours, r->push ? ",push" : "");

    if (told && (!r->push || strncmp(told, ours, strlen(ours)) != 0) && add_scope(u, told) < 0)
        return -1;
    if ((!told || r->push) && add_scope(u, all) < 0)
        return -1;
    for (char **name = r->from; name && *name; name++) {
        AUTO_FREE char *other = xasprintf("repository:%s:pull", *name);

        if (add_scope(u, other) < 0)
            return -1;
    }
    return 0;
}

/* The realm with the query of the token protocol. The caller frees it; NULL with err. */
static char *token_url(const struct registry *r, const struct challenge *c, struct error *err)
{
    AUTO_FREE char *service = c->service ? xasprintf("service=%s", c->service) : NULL;
    char *text = NULL, *out = NULL;
    CURLU *u = curl_url();

    if (u && !curl_url_set(u, CURLUPART_URL, c->realm, 0) &&
        (!service ||
         !curl_url_set(u, CURLUPART_QUERY, service, CURLU_APPENDQUERY | CURLU_URLENCODE)) &&
        add_scopes(r, c->scope, u) == 0 && !curl_url_get(u, CURLUPART_URL, &text, 0))
        out = xstrdup(text);
    curl_free(text);
    curl_url_cleanup(u);
    if (out && registry_url_allowed(r, out))
        return out;
    free(out);
    error_set(err, ERR_NET, "the registry names no https address where tokens are to be had");
    return NULL;
}

static int take_token(struct registry *r, struct slice text, struct error *err)
{
    json_t *doc = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    const char *token = oci_json_str(doc, "token");
    int rc;

    if (!token || !token[0])
        token = oci_json_str(doc, "access_token");
    rc = token && token[0] ? set_authorization(r, "Bearer", token, err)
                           : error_set(err, ERR_INVALID, "its answer has no token");
    json_decref(doc);
    return rc;
}

static int bearer(struct registry *r, const struct challenge *c, const struct credentials *who,
                  struct error *err)
{
    AUTO_BUF struct buf answer = BUF_SECRET(TOKEN_ANSWER_MAX);
    AUTO_BUF struct buf text = BUF_SECRET(2 * CREDENTIALS_MAX),
                        line = BUF_SECRET(3 * CREDENTIALS_MAX);
    struct fetch f = {.anonymous = true, .secret = true, .text = &answer, .fd = -1};
    int rc = -1;

    f.size = FETCH_SIZE_UNKNOWN;
    f.what = xasprintf("asking for a token");
    f.url = token_url(r, c, err);
    if (f.url &&
        (!who->found || (basic_line(who, &text, err) == 0 &&
                         buf_printf(&line, "Authorization: Basic %s", buf_cstr(&text)) == 0))) {
        f.header = who->found ? buf_cstr(&line) : NULL;
        rc = fetch_all(r, &f, 1, NULL, err);
        if (rc == 0)
            rc = take_token(r, buf_slice(&answer), err);
    }
    fetch_free(&f);
    return rc;
}

int registry_login(struct registry *r, struct slice challenge, struct error *err)
{
    AUTO_CHALLENGE struct challenge c = {0};
    AUTO_CREDENTIALS struct credentials who = CREDENTIALS_NONE;

    if (challenge_parse(challenge, &c, err) < 0 ||
        credentials_find(r->host, r->name, &who, err) < 0)
        return -1;
    log_debug("image", "logging in", kv_str("registry", r->host),
              kv_str("scheme", c.scheme == CHALLENGE_BASIC ? "Basic" : "Bearer"),
              kv_str("as", who.found ? "user" : "anybody"));
    return c.scheme == CHALLENGE_BASIC ? basic(r, &who, err) : bearer(r, &c, &who, err);
}
