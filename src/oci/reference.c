#include "oci/reference.h"

#include "base/text.h"

#include <stdio.h>

void reference_free(struct reference *r)
{
    free(r->host);
    free(r->name);
    free(r->tag);
    *r = (struct reference){0};
}

static bool is_lower_alnum(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(uint8_t c)
{
    return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

/* The first `c`, or the end. */
static size_t find(struct slice s, char c)
{
    const uint8_t *at = s.len ? memchr(s.ptr, c, s.len) : NULL;

    return at ? (size_t)(at - s.ptr) : s.len;
}

static struct slice from(struct slice s, size_t at)
{
    return slice_of(s.ptr + at, s.len - at);
}

static bool port_valid(struct slice port)
{
    uint64_t number;

    return parse_u64(port, 65535, &number) == 0 && number > 0;
}

bool reference_host_valid(struct slice host)
{
    size_t end;

    if (host.len == 0 || host.len > REFERENCE_NAME_MAX)
        return false;
    if (host.ptr[0] == '[') {
        end = find(host, ']');
        for (size_t i = 1; i < end; i++)
            if (hex_digit_value(host.ptr[i]) < 0 && host.ptr[i] != ':' && host.ptr[i] != '.')
                return false;
        if (end < 3 || end == host.len)
            return false;
        end++;
    } else {
        end = find(host, ':');
        /* Labels between single dots; a hyphen is neither first nor last in one. */
        for (size_t i = 0; i < end; i++) {
            bool inside = i > 0 && i + 1 < end;

            if (is_alnum(host.ptr[i]))
                continue;
            if (!inside || (host.ptr[i] != '-' && host.ptr[i] != '.') || host.ptr[i - 1] == '.' ||
                host.ptr[i + 1] == '.')
                return false;
        }
        if (end == 0)
            return false;
    }
    return end == host.len || (host.ptr[end] == ':' && port_valid(from(host, end + 1)));
}

bool reference_host_is_loopback(const char *host)
{
    size_t len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    unsigned int a, b, c;
    int end = 0;

    if ((len == 9 && strncmp(host, "localhost", 9) == 0) ||
        (len == 5 && strncmp(host, "[::1]", 5) == 0))
        return true;
    return sscanf(host, "127.%3u.%3u.%3u%n", &a, &b, &c, &end) == 3 && (size_t)end == len &&
           a < 256 && b < 256 && c < 256;
}

static bool looks_like_host(struct slice first)
{
    if (slice_equal_str(first, "localhost"))
        return true;
    for (size_t i = 0; i < first.len; i++)
        if (first.ptr[i] == '.' || first.ptr[i] == ':' ||
            (first.ptr[i] >= 'A' && first.ptr[i] <= 'Z'))
            return true;
    return false;
}

/* Lower-case letters and digits, between them ".", "_", "__" or any number of "-". */
static bool component_valid(struct slice s)
{
    size_t i = 0;

    while (i < s.len && is_lower_alnum(s.ptr[i])) {
        size_t start;

        while (i < s.len && is_lower_alnum(s.ptr[i]))
            i++;
        if (i == s.len)
            return true;
        start = i;
        while (i < s.len && s.ptr[i] == s.ptr[start] && !is_lower_alnum(s.ptr[i]))
            i++;
        if (s.ptr[start] != '-' && i - start > (s.ptr[start] == '_'   ? 2U
                                                : s.ptr[start] == '.' ? 1U
                                                                      : 0U))
            return false;
    }
    return false;
}

static bool name_valid(struct slice name)
{
    for (;;) {
        size_t slash = find(name, '/');

        if (!component_valid(slice_of(name.ptr, slash)))
            return false;
        if (slash == name.len)
            return true;
        name = from(name, slash + 1);
    }
}

static bool tag_valid(struct slice tag)
{
    if (tag.len == 0 || tag.len > REFERENCE_TAG_MAX)
        return false;
    for (size_t i = 0; i < tag.len; i++)
        if (!is_alnum(tag.ptr[i]) && tag.ptr[i] != '_' &&
            (i == 0 || (tag.ptr[i] != '.' && tag.ptr[i] != '-')))
            return false;
    return true;
}

int reference_parse(struct slice text, struct reference *out, struct error *err)
{
    size_t at = find(text, '@'), slash, colon;
    struct slice name = slice_of(text.ptr, at), host = {0}, tag = {0};
    struct reference r = {.pinned = at < text.len};

    if (r.pinned && digest_parse(from(text, at + 1), &r.digest, err) < 0)
        return -1;
    slash = find(name, '/');
    if (slash < name.len && looks_like_host(slice_of(name.ptr, slash))) {
        host = slice_of(name.ptr, slash);
        name = from(name, slash + 1);
    }
    colon = find(name, ':');
    if (colon < name.len)
        tag = from(name, colon + 1);
    if (colon + host.len > REFERENCE_NAME_MAX || (host.len && !reference_host_valid(host)) ||
        !name_valid(slice_of(name.ptr, colon)) || (colon < name.len && !tag_valid(tag))) {
        error_set(err, ERR_USAGE, "not the name of an image in a registry");
        return error_hint(err, "write HOST[:PORT]/NAME[:TAG][@sha256:DIGEST], names in lower case");
    }
    r.host = host.len ? slice_dup_str(host) : NULL;
    r.name = slice_dup_str(slice_of(name.ptr, colon));
    if (tag.len)
        r.tag = slice_dup_str(tag);
    else if (!r.pinned)
        r.tag = xstrdup("latest");
    *out = r;
    return 0;
}
