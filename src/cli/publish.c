#include "cli/publish.h"

#include "base/log.h"
#include "base/mem.h"
#include "manifest/manifest.h"

#include <stdio.h>
#include <string.h>

const char *publish_format(const struct publish *p, char out[PUBLISH_TEXT_SIZE])
{
    bool six = strchr(p->address, ':') != NULL;

    snprintf(out, PUBLISH_TEXT_SIZE, "%s%s%s%s%u:%u", six ? "[" : "", p->address, six ? "]" : "",
             p->address[0] ? ":" : "", p->host_port, p->enclave_port);
    return out;
}

static int append(struct publish_list *list, const struct publish *p, const char *text,
                  struct error *err)
{
    if (list->count == PUBLISH_MAX)
        return error_set(err, ERR_USAGE, "-p %s: more than %d ports", text, PUBLISH_MAX);
    for (size_t i = 0; i < list->count; i++)
        if (publish_clash(&list->items[i], p))
            return error_set(err, ERR_USAGE, "-p %s: host port %u is published twice", text,
                             p->host_port);
    list->items[list->count++] = *p;
    return 0;
}

int publish_add(struct publish_list *list, const char *text, struct error *err)
{
    const char *slash = strchr(text, '/');
    AUTO_FREE char *ports = slash ? xstrndup(text, (size_t)(slash - text)) : xstrdup(text);
    struct publish p;

    if (slash && strcmp(slash, "/tcp") != 0)
        return error_set(err, ERR_USAGE, "-p %s: only tcp can be published", text);
    if (!strchr(ports, ':')) {
        error_set(err, ERR_USAGE, "-p %s: needs a host port and a container port", text);
        return error_hint(err, "write [ADDR:]HOST:CONTAINER, as in 8080:80 or 127.0.0.1:8080:80");
    }
    if (publish_parse(ports, &p, err) < 0)
        return -1;
    if (p.host_port == 0)
        return error_set(err, ERR_USAGE, "-p %s: the host port is not between 1 and 65535", text);
    return append(list, &p, text, err);
}

static bool is_published(const struct publish_list *list, uint16_t container)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].enclave_port == container)
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
        if (!is_ingress(m, list->items[i].enclave_port))
            log_warn("run",
                     "a published port is not in the manifest's ingress: connections to it "
                     "will be closed",
                     kv_str("publish", publish_format(&list->items[i], text)));
    for (size_t i = 0; i < m->ingress.count; i++) {
        uint16_t port = m->ingress.items[i].listen_port;
        const struct publish p = {.host_port = port, .enclave_port = port};

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
