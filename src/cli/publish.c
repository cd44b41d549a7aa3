#include "cli/publish.h"

#include "base/mem.h"

#include <string.h>

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
    if (list->count == PUBLISH_MAX)
        return error_set(err, ERR_USAGE, "-p %s: more than %d ports", text, PUBLISH_MAX);
    for (size_t i = 0; i < list->count; i++)
        if (publish_clash(&list->items[i], &p))
            return error_set(err, ERR_USAGE, "-p %s: host port %u is published twice", text,
                             p.host_port);
    list->items[list->count++] = p;
    return 0;
}
