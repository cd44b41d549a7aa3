#include "cli/publish.h"

#include "base/log.h"
#include "base/text.h"
#include "manifest/manifest.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static int bad(const char *text, struct error *err, const char *what)
{
    error_set(err, ERR_USAGE, "-p %s: %s", text, what);
    return error_hint(err, "write -p [ADDR:]HOST:CONTAINER, as in -p 8080:80 or "
                           "-p 127.0.0.1:8080:80");
}

static int parse_port(struct slice text, uint16_t *out)
{
    uint64_t v;

    if (parse_u64(text, 65535, &v) < 0 || v == 0)
        return -1;
    *out = (uint16_t)v;
    return 0;
}

/* Cuts off what follows the last colon; false when there is none. */
static bool cut_last(struct slice *rest, struct slice *tail)
{
    const uint8_t *colon = rest->len ? memrchr(rest->ptr, ':', rest->len) : NULL;

    if (!colon)
        return false;
    *tail = slice_of(colon + 1, rest->len - (size_t)(colon - rest->ptr) - 1);
    rest->len = (size_t)(colon - rest->ptr);
    return true;
}

static int parse_addr(struct slice text, char out[INET6_ADDRSTRLEN])
{
    struct in6_addr bin;
    char raw[INET6_ADDRSTRLEN];
    bool six = text.len >= 2 && text.ptr[0] == '[' && text.ptr[text.len - 1] == ']';

    if (six)
        text = slice_of(text.ptr + 1, text.len - 2);
    if (text.len >= sizeof(raw))
        return -1;
    memcpy(raw, text.ptr, text.len);
    raw[text.len] = '\0';
    if (inet_pton(six ? AF_INET6 : AF_INET, raw, &bin) != 1)
        return -1;
    return inet_ntop(six ? AF_INET6 : AF_INET, &bin, out, INET6_ADDRSTRLEN) ? 0 : -1;
}

int publish_parse(const char *text, struct publish *out, struct error *err)
{
    struct slice rest = slice_str(text), host, container;
    struct publish p = {0};
    const char *slash = strchr(text, '/');

    if (slash) {
        if (strcmp(slash, "/tcp") != 0)
            return bad(text, err, "only tcp can be published");
        rest.len = (size_t)(slash - text);
    }
    if (!cut_last(&rest, &container))
        return bad(text, err, "needs a host port and a container port");
    if (parse_port(container, &p.container) < 0)
        return bad(text, err, "the container port is not a number from 1 to 65535");
    if (!cut_last(&rest, &host)) {
        host = rest;
        rest.len = 0;
    } else if (parse_addr(rest, p.addr) < 0) {
        return bad(text, err, "the address is neither IPv4 nor IPv6 in brackets");
    }
    if (parse_port(host, &p.host) < 0)
        return bad(text, err, "the host port is not a number from 1 to 65535");
    *out = p;
    return 0;
}

const char *publish_format(const struct publish *p, char out[PUBLISH_TEXT_SIZE])
{
    bool six = strchr(p->addr, ':') != NULL;

    snprintf(out, PUBLISH_TEXT_SIZE, "%s%s%s%s%u:%u", six ? "[" : "", p->addr, six ? "]" : "",
             p->addr[0] ? ":" : "", p->host, p->container);
    return out;
}

static int append(struct publish_list *list, const struct publish *p, const char *text,
                  struct error *err)
{
    if (list->count == PUBLISH_MAX)
        return error_set(err, ERR_USAGE, "-p %s: more than %d ports", text, PUBLISH_MAX);
    for (size_t i = 0; i < list->count; i++) {
        const struct publish *q = &list->items[i];

        if (q->host == p->host && (!q->addr[0] || !p->addr[0] || strcmp(q->addr, p->addr) == 0))
            return error_set(err, ERR_USAGE, "-p %s: host port %u is published twice", text,
                             p->host);
    }
    list->items[list->count++] = *p;
    return 0;
}

int publish_add(struct publish_list *list, const char *text, struct error *err)
{
    struct publish p;

    return publish_parse(text, &p, err) < 0 ? -1 : append(list, &p, text, err);
}

static bool is_published(const struct publish_list *list, uint16_t container)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].container == container)
            return true;
    return false;
}

static bool is_ingress(const struct manifest *m, uint16_t port)
{
    for (size_t i = 0; i < m->ingress.count; i++)
        if (m->ingress.items[i].listen_port == port)
            return true;
    return false;
}

int publish_match(struct publish_list *list, const struct manifest *m, bool all, struct error *err)
{
    char text[PUBLISH_TEXT_SIZE];

    for (size_t i = 0; i < list->count; i++)
        if (!is_ingress(m, list->items[i].container))
            log_warn("run",
                     "a published port is not in the manifest's ingress: connections to it "
                     "will be closed",
                     kv_str("publish", publish_format(&list->items[i], text)));
    for (size_t i = 0; i < m->ingress.count; i++) {
        uint16_t port = m->ingress.items[i].listen_port;
        const struct publish p = {.host = port, .container = port};

        if (is_published(list, port))
            continue;
        if (!all)
            log_warn("run",
                     "an ingress port is not published: nobody outside can reach it; "
                     "-p or --publish-all does that",
                     kv_uint("port", port));
        else if (append(list, &p, publish_format(&p, text), err) < 0)
            return -1;
    }
    return 0;
}
