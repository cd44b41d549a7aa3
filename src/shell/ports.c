/* Which host ports lead to which ingress ports: what -p says, held against the manifest. */
#include "base/log.h"
#include "base/mem.h"
#include "shell/shell.h"

static const struct manifest_ingress *find_ingress(const struct manifest *m, uint16_t port)
{
    for (size_t i = 0; i < m->ingress.count; i++)
        if (m->ingress.items[i].listen_port == port)
            return &m->ingress.items[i];
    return NULL;
}

static bool is_published(const struct shell_ports *ports, uint16_t enclave_port)
{
    for (size_t i = 0; i < ports->count; i++)
        if (ports->items[i].enclave_port == enclave_port)
            return true;
    return false;
}

/* What clashes with an earlier one is an error. The list has room. */
static int add(struct shell_ports *ports, const struct manifest_ingress *in, struct publish p,
               struct error *err)
{
    for (size_t i = 0; i < ports->count; i++) {
        if (!publish_clash(&ports->items[i], &p))
            continue;
        error_set(err, ERR_USAGE, "host port %u is published twice, for %u and %u", p.host_port,
                  ports->items[i].enclave_port, p.enclave_port);
        return error_hint(err, "give one of them another host port: -p OTHER:%u", p.enclave_port);
    }
    p.proxy_header = in->proxy_protocol == MANIFEST_PROXY_PROTOCOL_V2;
    ports->items[ports->count++] = p;
    return 0;
}

/*
 * A listener without ingress behind it would take connections only to close them, and look like an
 * app that fails; so it is not opened, as a port is not that nobody publishes.
 */
static int add_asked(struct shell *sh, struct error *err)
{
    const struct shell_options *o = &sh->options;

    for (size_t i = 0; i < o->publish_count; i++) {
        const struct publish *p = &o->publish[i];
        const struct manifest_ingress *in = find_ingress(sh->manifest, p->enclave_port);

        if (!in)
            log_warn("ingress",
                     "a published port is not in the manifest's ingress and is not opened",
                     kv_uint("port", p->host_port), kv_uint("enclave_port", p->enclave_port));
        else if (add(&sh->ports, in, *p, err) < 0)
            return -1;
    }
    return 0;
}

int shell_ports_match(struct shell *sh, struct error *err)
{
    const struct manifest_ingress_list *all = &sh->manifest->ingress;

    sh->ports.items = xcalloc(sh->options.publish_count + all->count, sizeof(*sh->ports.items));
    if (add_asked(sh, err) < 0)
        return -1;
    for (size_t i = 0; i < all->count; i++) {
        uint16_t port = all->items[i].listen_port;
        const struct publish same = {.host_port = port, .enclave_port = port};

        if (is_published(&sh->ports, port))
            continue;
        if (!sh->options.publish_all)
            log_warn("ingress",
                     "an ingress port is not published: nobody outside can reach it; -p or "
                     "--publish-all does that",
                     kv_uint("enclave_port", port));
        else if (add(&sh->ports, &all->items[i], same, err) < 0)
            return -1;
    }
    return 0;
}
