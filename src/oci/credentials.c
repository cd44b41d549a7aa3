#include "oci/credentials.h"

#include "base/file.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/text.h"
#include "oci/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#define FILE_MAX         ((size_t)1 << 20)
#define HELPER_MS        30000
#define HELPER_PREFIX    "docker-credential-"
#define HELPER_NOT_FOUND "credentials not found"
#define IDENTITY_USER    "<token>" /* the password is not one, but an identity token */

static int identity_token(struct error *err)
{
    error_set(err, ERR_UNSUPPORTED,
              "the registry's login is an identity token, which is not available in this version");
    return error_hint(err, "log in with user and password, or an access token in its place");
}

/* ---- credential helpers ---- */

/* What a helper printed: {"ServerURL", "Username", "Secret"}. */
static int take_helper_answer(struct slice text, struct credentials *out, struct error *err)
{
    json_t *doc = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    const char *user = oci_json_str(doc, "Username"), *secret = oci_json_str(doc, "Secret");
    int rc = 0;

    if (!user || !secret)
        rc = error_set(err, ERR_INVALID, "its answer has no user name and secret");
    else if (strcmp(user, IDENTITY_USER) == 0)
        rc = identity_token(err);
    else if (buf_printf(&out->pair, "%s:%s", user, secret) < 0)
        rc = error_set(err, ERR_LIMIT, "user name and secret are too long");
    else
        out->found = true;
    json_decref(doc);
    return rc;
}

static int ask_helper(const char *helper, const char *host, struct credentials *out,
                      struct error *err)
{
    AUTO_FREE char *program = xasprintf(HELPER_PREFIX "%s", helper);
    const char *argv[] = {program, "get", NULL};
    AUTO_BUF struct buf answer = BUF_SECRET(CREDENTIALS_MAX);

    if (strchr(helper, '/'))
        return error_set(err, ERR_INVALID, "the credential helper %.100s is not a plain name",
                         helper);
    if (proc_run_input(argv, slice_str(host), HELPER_MS, &answer, err) < 0) {
        /* Helpers say "no" with exit status 1 and this on standard output. */
        if (strstr(buf_cstr(&answer), HELPER_NOT_FOUND))
            return 0;
        return error_wrap(err, "credentials for %s", host);
    }
    if (take_helper_answer(buf_slice(&answer), out, err) < 0)
        return error_wrap(err, "credential helper %s", program);
    return 0;
}

/* ---- files ---- */

/* Keys may be URLs: "https://host/v1/". The part that names what `host` names. */
static struct slice key_of(const char *key)
{
    size_t len;

    if (strncmp(key, "https://", 8) == 0)
        key += 8;
    else if (strncmp(key, "http://", 7) == 0)
        key += 7;
    else
        return slice_str(key);
    len = strcspn(key, "/");
    return slice_of(key, len);
}

/* How much of "host/name" the key covers, in bytes; 0 when it is for something else. */
static size_t covers(struct slice key, const char *whole, size_t host_len)
{
    if (key.len < host_len || key.len > strlen(whole) || memcmp(key.ptr, whole, key.len) != 0)
        return 0;
    return whole[key.len] == '\0' || whole[key.len] == '/' ? key.len : 0;
}

/* The entry of `auths` that is closest to the image; borrowed, NULL when there is none. */
static const json_t *closest(json_t *auths, const char *host, const char *name)
{
    AUTO_FREE char *whole = xasprintf("%s/%s", host, name);
    const json_t *found = NULL;
    const char *key;
    size_t best = 0;
    json_t *entry;

    json_object_foreach (auths, key, entry) {
        size_t len = covers(key_of(key), whole, strlen(host));

        /* An empty entry says that the helper has it. */
        if (len > best && json_object_size(entry) > 0) {
            best = len;
            found = entry;
        }
    }
    return found;
}

static int take_entry(const json_t *entry, struct credentials *out, struct error *err)
{
    const char *auth = oci_json_str(entry, "auth"), *token = oci_json_str(entry, "identitytoken");

    if (token && token[0])
        return identity_token(err);
    if (!auth || !auth[0])
        return 0;
    if (base64_decode(slice_str(auth), &out->pair) < 0 ||
        !memchr(out->pair.ptr, ':', out->pair.len))
        return error_set(err, ERR_INVALID, "\"auth\" is not the base64 of USER:PASSWORD");
    out->found = true;
    return 0;
}

static int look_in(json_t *doc, const char *host, const char *name, struct credentials *out,
                   struct error *err)
{
    const char *helper = oci_json_str(json_object_get(doc, "credHelpers"), host);
    const char *store = oci_json_str(doc, "credsStore");
    const json_t *entry = closest(json_object_get(doc, "auths"), host, name);

    if (helper && helper[0])
        return ask_helper(helper, host, out, err);
    if (store && store[0] && (ask_helper(store, host, out, err) < 0 || out->found))
        return out->found ? 0 : -1;
    return entry ? take_entry(entry, out, err) : 0;
}

/* A file that is not there is passed over, unless the user named it. */
static int try_file(const char *path, bool chosen, const char *host, const char *name,
                    struct credentials *out, struct error *err)
{
    AUTO_BUF struct buf text = BUF_SECRET(FILE_MAX);
    struct error why = {0};
    json_t *doc;
    int rc;

    if (file_read(path, &text, &why) < 0) {
        if (!chosen && (why.sys == ENOENT || why.sys == ENOTDIR))
            return 0;
        return error_set(err, why.kind, "%s", why.msg);
    }
    doc = oci_json_parse(buf_slice(&text), path, err);
    if (!doc)
        return -1;
    rc = look_in(doc, host, name, out, err);
    json_decref(doc);
    if (rc < 0)
        return error_wrap(err, "%s", path);
    if (out->found)
        log_debug("image", "credentials found", kv_str("registry", host), kv_str("in", path));
    return 0;
}

int credentials_find(const char *host, const char *name, struct credentials *out, struct error *err)
{
    const char *chosen = getenv("REGISTRY_AUTH_FILE"), *home = getenv("HOME");
    const struct {
        const char *variable, *below, *below_home;
    } places[] = {
        {"XDG_RUNTIME_DIR", "containers/auth.json", NULL},
        {"XDG_CONFIG_HOME", "containers/auth.json", ".config/containers/auth.json"},
        {"DOCKER_CONFIG", "config.json", ".docker/config.json"},
    };

    if (chosen && chosen[0])
        return try_file(chosen, true, host, name, out, err);
    for (size_t i = 0; i < ARRAY_LEN(places) && !out->found; i++) {
        const char *dir = getenv(places[i].variable);
        AUTO_FREE char *path = NULL;

        if (dir && dir[0] == '/')
            path = xasprintf("%s/%s", dir, places[i].below);
        else if (places[i].below_home && home && home[0] == '/')
            path = xasprintf("%s/%s", home, places[i].below_home);
        if (path && try_file(path, false, host, name, out, err) < 0)
            return -1;
    }
    return 0;
}
