/* Checks of single values, called through the schema table. */
#include "manifest/loader.h"

#include <ctype.h>

bool is_blank(const char *s)
{
    return s[strspn(s, " \t")] == '\0';
}

char *trim(char *s)
{
    size_t lead = strspn(s, " \t"), len = strlen(s + lead);

    memmove(s, s + lead, len + 1);
    while (len > 0 && (s[len - 1] == ' ' || s[len - 1] == '\t'))
        s[--len] = '\0';
    return s;
}

static bool all_in(struct slice s, const char *set)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == '\0' || !strchr(set, s.ptr[i]))
            return false;
    return true;
}

#define LOWER  "abcdefghijklmnopqrstuvwxyz"
#define UPPER  "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

void rule_version(struct loader *l, void *value)
{
    char **version = value, text[SHOWN_SIZE];

    if (strcmp(*version, "v1") == 0)
        return;
    if (strcmp(*version, "1") == 0) {
        loader_warn(l, "write v1");
        free(*version);
        *version = xstrdup("v1");
        return;
    }
    loader_error(l, "\"%s\" is not a version of this format; this program knows v1",
                 shown(slice_str(*version), text));
}

void rule_blank_is_absent(struct loader *l, void *value)
{
    char **text = value;

    if (!is_blank(*text))
        return;
    loader_warn(l, "is blank, which counts as absent; leave the key out");
    free(*text);
    *text = NULL;
}

/* ---- files and images ---- */

static char *absolute_path(const struct loader *l, const char *path)
{
    const char *dir = l->m->dir;

    if (path[0] == '/')
        return xstrdup(path);
    while (strncmp(path, "./", 2) == 0)
        path += 2 + strspn(path + 2, "/");
    return xasprintf("%s/%s", strcmp(dir, "/") == 0 ? "" : dir, path);
}

void rule_file_path(struct loader *l, void *value)
{
    char **path = value, *absolute = absolute_path(l, *path);

    free(*path);
    *path = absolute;
}

/* One part between slashes: words of [a-z0-9] joined by ".", "_", "__" or any number of "-". */
static bool is_path_part(struct slice s)
{
    size_t i = 0;

    for (;;) {
        size_t word = i, joint;

        while (i < s.len && (islower(s.ptr[i]) || isdigit(s.ptr[i])))
            i++;
        if (i == word)
            return false;
        if (i == s.len)
            return true;
        joint = i;
        while (i < s.len && s.ptr[i] == s.ptr[joint] && strchr("._-", s.ptr[i]))
            i++;
        if (i == joint || (s.ptr[joint] == '.' && i - joint > 1) ||
            (s.ptr[joint] == '_' && i - joint > 2))
            return false;
    }
}

static bool is_registry(struct slice s)
{
    size_t host = s.len;

    while (host > 0 && s.ptr[host - 1] != ':' && s.ptr[host - 1] != ']')
        host--;
    if (host > 0 && s.ptr[host - 1] == ':') {
        struct slice port = slice_of(s.ptr + host, s.len - host);

        if (port.len == 0 || port.len > 5 || !all_in(port, DIGITS))
            return false;
        host--;
    } else if (host < s.len && host > 0) {
        return false; /* something behind the bracket */
    } else {
        host = s.len;
    }
    if (host > 2 && s.ptr[0] == '[' && s.ptr[host - 1] == ']')
        return all_in(slice_of(s.ptr + 1, host - 2), DIGITS "abcdefABCDEF:.");
    return host > 0 && isalnum(s.ptr[0]) && isalnum(s.ptr[host - 1]) &&
           all_in(slice_of(s.ptr, host), LOWER UPPER DIGITS ".-");
}

static bool looks_like_registry(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == '.' || s.ptr[i] == ':' || isupper(s.ptr[i]))
            return true;
    return slice_equal_str(s, "localhost");
}

static const char *name_fault(struct slice name)
{
    size_t start = 0;

    if (name.len > 255)
        return "the name is longer than 255 bytes";
    for (size_t i = 0; i <= name.len; i++) {
        struct slice part = slice_of(name.ptr + start, i - start);

        if (i < name.len && name.ptr[i] != '/')
            continue;
        if (part.len == 0)
            return name.len ? "a part of the name is empty" : "the name is empty";
        if (start == 0 && i < name.len && looks_like_registry(part)) {
            if (!is_registry(part))
                return "the registry in front is not HOST or HOST:PORT";
        } else if (!is_path_part(part)) {
            for (size_t j = 0; j < part.len; j++)
                if (isupper(part.ptr[j]))
                    return "names are in lower case";
            return "a name consists of a-z, 0-9, and single \".\", \"_\" or \"-\" between them";
        }
        start = i + 1;
    }
    return NULL;
}

static bool is_digest(struct slice s)
{
    static const char prefix[] = "sha256:";

    return s.len == sizeof(prefix) - 1 + 64 && memcmp(s.ptr, prefix, sizeof(prefix) - 1) == 0 &&
           all_in(slice_of(s.ptr + sizeof(prefix) - 1, 64), DIGITS "abcdef");
}

/* What keeps the text from being [REGISTRY/]NAME[:TAG][@DIGEST]; NULL when nothing does. */
static const char *reference_fault(const char *text, bool digest_ok, bool *tagged)
{
    const char *at = strchr(text, '@'), *end = at ? at : text + strlen(text), *colon, *slash;

    *tagged = false;
    if (strpbrk(text, " \t"))
        return "it contains a blank";
    if (at && !digest_ok)
        return "a digest cannot be chosen beforehand; give NAME[:TAG]";
    if (at && !is_digest(slice_str(at + 1)))
        return "what follows \"@\" is not sha256: and 64 hex digits";
    colon = memrchr(text, ':', (size_t)(end - text));
    slash = memrchr(text, '/', (size_t)(end - text));
    if (colon && (!slash || colon > slash)) {
        struct slice tag = slice_of(colon + 1, (size_t)(end - colon - 1));

        if (tag.len == 0 || tag.len > 128 || strchr(".-", tag.ptr[0]) ||
            !all_in(tag, LOWER UPPER DIGITS "_.-"))
            return "the tag behind \":\" is 1 to 128 letters, digits, \"_\", \".\" or \"-\"";
        *tagged = true;
        end = colon;
    }
    return name_fault(slice_of(text, (size_t)(end - text)));
}

void rule_target(struct loader *l, void *value)
{
    char **target = value, text[SHOWN_SIZE];
    bool tagged;
    const char *fault = reference_fault(*target, false, &tagged);

    if (fault) {
        loader_error(l, "\"%s\" is no image name: %s", shown(slice_str(*target), text), fault);
    } else if (!tagged) {
        char *with_tag = xasprintf("%s:latest", *target);

        free(*target);
        *target = with_tag;
    }
}

enum transport_kind {
    TRANSPORT_IMAGE,       /* an image name follows */
    TRANSPORT_IMAGE_OR_ID, /* or sha256:HEX */
    TRANSPORT_PATH,        /* a file or directory, perhaps :TAG */
};
/* Names as skopeo and podman use them (containers-transports(5)). */
static const struct {
    const char *prefix;
    enum transport_kind kind;
} transports[] = {
    {"docker://", TRANSPORT_IMAGE},
    {"docker-daemon:", TRANSPORT_IMAGE_OR_ID},
    {"oci:", TRANSPORT_PATH},
    {"oci-archive:", TRANSPORT_PATH},
    {"docker-archive:", TRANSPORT_PATH},
    {"dir:", TRANSPORT_PATH},
};

static void check_image_name(struct loader *l, const char *whole, const char *name)
{
    char text[SHOWN_SIZE];
    const char *scheme = strstr(name, "://");
    bool tagged;
    const char *fault = reference_fault(name, true, &tagged);

    if (!fault)
        return;
    shown(slice_str(whole), text);
    if (whole[0] == '/' || whole[0] == '.')
        loader_error(l,
                     "\"%s\" looks like a path; write dir:PATH for a directory with a root file "
                     "system, oci:PATH, oci-archive:PATH or docker-archive:PATH for an image",
                     text);
    else if (scheme)
        loader_error(
            l, "\"%s\" is no image; one in a registry is NAME[:TAG] or docker://NAME[:TAG]", text);
    else
        loader_error(l, "\"%s\" is no image name: %s", text, fault);
}

void rule_image(struct loader *l, void *value)
{
    char **image = value, *absolute, text[SHOWN_SIZE];

    if (is_blank(*image)) {
        loader_error(l, "must not be blank");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(transports); i++) {
        const char *prefix = transports[i].prefix, *rest = *image + strlen(prefix);

        if (strncmp(*image, prefix, strlen(prefix)) != 0)
            continue;
        if (transports[i].kind == TRANSPORT_IMAGE_OR_ID && is_digest(slice_str(rest)))
            return;
        if (transports[i].kind != TRANSPORT_PATH) {
            check_image_name(l, *image, rest);
            return;
        }
        if (is_blank(rest) || rest[0] == ':') {
            loader_error(l, "\"%s\": a path follows \"%s\"", shown(slice_str(*image), text),
                         prefix);
            return;
        }
        absolute = absolute_path(l, rest);
        free(*image);
        *image = xasprintf("%s%s", prefix, absolute);
        free(absolute);
        return;
    }
    check_image_name(l, *image, *image);
}

/* ---- network ---- */

void rule_ingress_port(struct loader *l, void *value)
{
    unsigned port = *(uint16_t *)value;

    if (port == 17000 || port == 17001)
        loader_error(l, "%u is the port of the enclave's own %s stream; take another one", port,
                     port == 17000 ? "status" : "log");
}

static bool egress_rule(struct loader *l, const char *text, struct policy_rule *rule)
{
    struct error err = {0};

    if (policy_rule_parse(slice_str(text), rule, &err) < 0) {
        loader_error(l, "%s%s%s", err.msg, err.hint[0] ? "; " : "", err.hint);
        return false;
    }
    if (rule->warning[0])
        loader_warn(l, "%s", rule->warning);
    return true;
}

void rule_egress_allow(struct loader *l, void *value)
{
    const char *text = *(char **)value;
    struct policy_rule rule;

    if (!egress_rule(l, text, &rule))
        return;
    if (policy_rule_is_all(&rule))
        loader_warn(l, "\"%s\" lets the app reach every %s", text,
                    rule.kind == POLICY_RULE_NAME ? "name" : "address, the instance's too");
    policy_add_allow(&l->m->policy, &rule);
}

void rule_egress_deny(struct loader *l, void *value)
{
    struct policy_rule rule;

    if (egress_rule(l, *(char **)value, &rule))
        policy_add_deny(&l->m->policy, &rule);
}

/* ---- storage ---- */

void rule_s3_prefix(struct loader *l, void *value)
{
    char **prefix = value, *slashed;
    size_t len = strlen(*prefix);

    (void)l;
    if (len == 0 || (*prefix)[len - 1] == '/')
        return;
    slashed = xasprintf("%s/", *prefix);
    free(*prefix);
    *prefix = slashed;
}

void rule_mount_name(struct loader *l, void *value)
{
    const char *name = *(char **)value;
    char text[SHOWN_SIZE];

    shown(slice_str(name), text);
    if (!all_in(slice_str(name), LOWER UPPER DIGITS ".-_"))
        loader_error(
            l, "\"%s\": a mount's name consists of letters, digits, \".\", \"-\" and \"_\"", text);
    else if (!isalnum((unsigned char)name[0]))
        loader_error(l, "\"%s\": a mount's name starts with a letter or digit", text);
    else if (strlen(name) > 64)
        loader_error(l, "\"%s\": a mount's name has at most 64 characters", text);
}

/* Copies the path without "." parts, double and final slashes. False when a part is "..". */
static bool normalise_path(const char *path, char *out)
{
    size_t used = 0;

    for (const char *p = path; *p;) {
        size_t len;

        p += strspn(p, "/");
        len = strcspn(p, "/");
        if (len == 2 && memcmp(p, "..", 2) == 0)
            return false;
        if (len > 0 && !(len == 1 && *p == '.')) {
            out[used++] = '/';
            memcpy(out + used, p, len);
            used += len;
        }
        p += len;
    }
    out[used] = '\0';
    return true;
}

void rule_mount_path(struct loader *l, void *value)
{
    char **path = value, text[SHOWN_SIZE];
    AUTO_FREE char *normal = xmalloc(strlen(*path) + 2);

    shown(slice_str(*path), text);
    if ((*path)[0] != '/') {
        loader_error(l, "\"%s\" is not absolute; it must be a directory below /mnt", text);
    } else if (!normalise_path(*path, normal)) {
        loader_error(l, "\"%s\" contains \"..\"; write the path without it", text);
    } else if (strncmp(normal, "/mnt/", 5) != 0) {
        loader_error(l, "\"%s\" is not below /mnt, where mounts belong", text);
    } else {
        free(*path);
        *path = xstrdup(normal);
        return;
    }
    (*path)[0] = '\0'; /* no further complaints about this one */
}
