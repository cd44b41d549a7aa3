#include "oci/registry_hosts.h"

#include "base/file.h"
#include "base/strv.h"
#include "crypto/pem.h"
#include "oci/reference.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>

#define CONF_MAX ((size_t)1 << 20)
#define KEY      "unqualified-search-registries"

/* ---- registries.conf ---- */

/* White space, and over line ends too, comments. */
static void skip_space(struct reader *r)
{
    while (r->pos < r->end && *r->pos && strchr(" \t\r\n#", *r->pos)) {
        if (*r->pos == '#')
            while (r->pos < r->end && *r->pos != '\n')
                r->pos++;
        else
            r->pos++;
    }
}

static bool take(struct reader *r, char c)
{
    if (r->pos == r->end || *r->pos != (uint8_t)c)
        return false;
    r->pos++;
    return true;
}

/* "HOST" or 'HOST' */
static bool take_host(struct reader *r, char ***out)
{
    char quote = r->pos < r->end && *r->pos == '\'' ? '\'' : '"';
    const uint8_t *start = r->pos + 1;
    AUTO_FREE char *text = NULL;
    struct slice host;

    if (!take(r, quote))
        return false;
    while (r->pos < r->end && *r->pos != (uint8_t)quote)
        r->pos++;
    host = slice_of(start, (size_t)(r->pos - start));
    if (!take(r, quote) || !reference_host_valid(host))
        return false;
    text = slice_dup_str(host);
    strv_add(out, text);
    return true;
}

/* ["HOST", ...], over several lines, with a comma behind the last if they like. */
static bool take_list(struct reader *r, char ***out)
{
    bool more = true;

    if (!take(r, '['))
        return false;
    for (;;) {
        skip_space(r);
        if (take(r, ']'))
            return true;
        if (!more || !take_host(r, out))
            return false;
        skip_space(r);
        more = take(r, ',');
    }
}

int registries_conf_parse(struct slice text, char ***out, struct error *err)
{
    struct reader r = reader_of(text);

    for (;;) {
        skip_space(&r);
        /* Tables follow the keys of the top one. */
        if (r.pos == r.end || *r.pos == '[')
            return 0;
        if (reader_left(&r) > strlen(KEY) && memcmp(r.pos, KEY, strlen(KEY)) == 0) {
            r.pos += strlen(KEY);
            skip_space(&r);
            if (take(&r, '=')) {
                skip_space(&r);
                return take_list(&r, out)
                           ? 0
                           : error_set(err, ERR_INVALID, KEY ": not a list of HOST or HOST:PORT");
            }
        }
        while (r.pos < r.end && *r.pos != '\n')
            r.pos++;
    }
}

/* The list of one file. A file that is not there is passed over, unless the user named it. */
static int read_conf(const char *path, bool chosen, char ***out, struct error *err)
{
    AUTO_BUF struct buf text = BUF(CONF_MAX);
    struct error why = {0};

    if (file_read(path, &text, &why) < 0) {
        if (!chosen && (why.sys == ENOENT || why.sys == ENOTDIR))
            return 0;
        return error_set(err, why.kind, "%s", why.msg);
    }
    if (registries_conf_parse(buf_slice(&text), out, err) < 0)
        return error_wrap(err, "%s", path);
    return 0;
}

/* "$XDG_CONFIG_HOME/containers/SUB" or the same below ~/.config; NULL without a home. */
static char *user_config(const char *sub)
{
    const char *dir = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

    if (dir && dir[0] == '/')
        return xasprintf("%s/containers/%s", dir, sub);
    return home && home[0] == '/' ? xasprintf("%s/.config/containers/%s", home, sub) : NULL;
}

static int find_hosts(char ***out, struct error *err)
{
    const char *chosen = getenv("CONTAINERS_REGISTRIES_CONF");
    AUTO_FREE char *user = NULL;

    if (chosen && chosen[0])
        return read_conf(chosen, true, out, err);
    user = user_config("registries.conf");
    if (user && (read_conf(user, false, out, err) < 0 || *out))
        return *out ? 0 : -1;
    return read_conf("/etc/containers/registries.conf", false, out, err);
}

char *registry_default_host(struct error *err)
{
    AUTO_STRV char **hosts = NULL;

    if (find_hosts(&hosts, err) < 0)
        return NULL;
    if (hosts && strv_len(hosts) == 1)
        return xstrdup(hosts[0]);
    if (!hosts)
        error_set(err, ERR_NOT_FOUND, "the name says no registry, and nor does registries.conf");
    else
        error_set(err, ERR_NOT_FOUND,
                  "the name says no registry, and registries.conf has several (%.60s, %.60s, ...)",
                  hosts[0], hosts[1]);
    error_hint(err, "write docker://HOST/NAME:TAG with the registry's host name");
    return NULL;
}

/* ---- certificates ---- */

void registry_certs_free(struct registry_certs *c)
{
    buf_free(&c->authorities);
    free(c->client_cert);
    free(c->client_key);
    *c = REGISTRY_CERTS_NONE;
}

int registry_certs_add(struct registry_certs *c, const char *file, struct error *err)
{
    AUTO_BUF struct buf text = BUF(REGISTRY_CERTS_MAX), der = BUF(REGISTRY_CERTS_MAX);

    if (file_read(file, &text, err) < 0 ||
        pem_decode("CERTIFICATE", buf_slice(&text), &der, err) < 0)
        return error_wrap(err, "%s: not a readable file of PEM certificates", file);
    if (buf_append(&c->authorities, text.ptr, text.len) < 0 ||
        buf_append_byte(&c->authorities, '\n') < 0)
        return error_set(err, ERR_LIMIT, "%s: more than %zu bytes of certificates", file,
                         c->authorities.max);
    return 0;
}

static bool ends_with(const char *name, const char *end)
{
    size_t len = strlen(name), n = strlen(end);

    return len > n && strcmp(name + len - n, end) == 0;
}

static int take_certs(const char *dir, DIR *d, struct registry_certs *out, struct error *err)
{
    const struct dirent *e;

    while ((e = readdir(d)) != NULL) {
        AUTO_FREE char *path = xasprintf("%s/%s", dir, e->d_name);

        if (ends_with(path, ".crt")) {
            if (registry_certs_add(out, path, err) < 0)
                return -1;
        } else if (ends_with(path, ".cert") && !out->client_cert) {
            out->client_key = xasprintf("%.*s.key", (int)(strlen(path) - strlen(".cert")), path);
            out->client_cert = xstrdup(path);
        }
    }
    return 0;
}

int registry_certs_load(const char *host, struct registry_certs *out, struct error *err)
{
    char *places[] = {user_config("certs.d"), xstrdup("/etc/containers/certs.d"),
                      xstrdup("/etc/docker/certs.d")};
    bool done = false;
    int rc = 0;

    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        AUTO_FREE char *dir = places[i] && !done ? xasprintf("%s/%s", places[i], host) : NULL;
        DIR *d = dir ? opendir(dir) : NULL;

        if (d) {
            rc = take_certs(dir, d, out, err);
            closedir(d);
            done = true;
        }
        free(places[i]);
    }
    return rc;
}
