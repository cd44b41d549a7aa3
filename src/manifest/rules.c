/*
 * Rules that concern more than one value: spec/manifest.md sections 5 and 8.1. A value that was
 * refused before is NULL, "" or 0 here, and is passed over, so that one mistake is told once.
 */
#include "base/text.h"
#include "manifest/loader.h"

#include <strings.h>

static bool written(const struct loader *l, const void *member)
{
    return manifest_where(l->m, member) != NULL;
}

/* True for a list that was refused as such, so that nothing follows from its being empty. */
static bool refused(const struct loader *l, const void *member, const void *items)
{
    return written(l, member) && !items;
}

/* ---- storage (5.1, 5.6, 8.1 number 2) ---- */

static bool path_within(const char *inner, const char *outer)
{
    size_t len = strlen(outer);

    return strncmp(inner, outer, len) == 0 && inner[len] == '/';
}

/* The first earlier mount with the same name. */
static void check_mount_name(struct loader *l, const struct manifest_mount *mounts, size_t index)
{
    const struct manifest_mount *b = &mounts[index];
    char text[SHOWN_SIZE];

    for (size_t i = 0; i < index && b->name; i++) {
        const struct manifest_mount *a = &mounts[i];

        if (!a->name || strcasecmp(a->name, b->name) != 0)
            continue;
        loader_error_at(l, &b->name, "\"%s\" is the name of storage.mounts[%zu] already%s",
                        shown(slice_str(b->name), text), i,
                        strcmp(a->name, b->name) == 0 ? "" : "; case does not count");
        return;
    }
}

/* The first earlier mount that this one would hide, or be hidden by. */
static void check_mount_path(struct loader *l, const struct manifest_mount *mounts, size_t index)
{
    const struct manifest_mount *b = &mounts[index];
    char text[SHOWN_SIZE], other[SHOWN_SIZE];

    for (size_t i = 0; i < index && b->mount_path && b->mount_path[0]; i++) {
        const char *path = mounts[i].mount_path;

        if (!path || !path[0])
            continue;
        shown(slice_str(b->mount_path), text);
        shown(slice_str(path), other);
        if (strcmp(path, b->mount_path) == 0)
            loader_error_at(l, &b->mount_path, "%s is the path of storage.mounts[%zu] already",
                            text, i);
        else if (path_within(b->mount_path, path) || path_within(path, b->mount_path))
            loader_error_at(
                l, &b->mount_path,
                "%s lies %s %s of storage.mounts[%zu], and one mount would hide the other", text,
                path_within(path, b->mount_path) ? "above" : "inside", other, i);
        else
            continue;
        return;
    }
}

static void check_storage(struct loader *l)
{
    const struct manifest *m = l->m;
    const struct manifest_mount_list *mounts = &m->storage.mounts;
    const struct manifest_s3 *s3 = &m->storage.s3;

    for (size_t i = 1; i < mounts->count; i++) {
        check_mount_name(l, mounts->items, i);
        check_mount_path(l, mounts->items, i);
    }
    if (!s3->enabled)
        return;
    if (!manifest_egress_enabled(m) && !refused(l, &m->egress.allow, m->egress.allow.items))
        loader_error_at(l, &s3->enabled,
                        "S3 needs a way out; list its hosts in egress.allow, for example "
                        "\"**.amazonaws.com\"");
    if (s3->encryption.mode == MANIFEST_ENCRYPTION_KMS && !m->kms_integration.enabled)
        loader_error_at(l, &s3->encryption.mode,
                        "kms needs kms_integration with enabled: true, where the keys come from");
}

/* ---- kms_integration (5.2) ---- */

static void check_registry(struct loader *l, const char *registry)
{
    uint8_t address[20];
    char text[SHOWN_SIZE];

    if (registry[0] != '0' || (registry[1] != 'x' && registry[1] != 'X') ||
        hex_decode(slice_str(registry + 2), address, sizeof(address)) < 0)
        loader_error_at(l, &l->m->kms_integration.nova_app_registry,
                        "\"%s\" is no contract address: 0x and 40 hex digits",
                        shown(slice_str(registry), text));
}

static void check_kms(struct loader *l)
{
    struct manifest_kms *kms = &l->m->kms_integration;
    bool id = written(l, &kms->kms_app_id), registry;

    if (kms->nova_app_registry && is_blank(trim(kms->nova_app_registry))) {
        free(kms->nova_app_registry);
        kms->nova_app_registry = NULL;
    }
    registry = kms->nova_app_registry != NULL;
    if (kms->use_app_wallet && !kms->enabled)
        loader_error_at(l, &kms->use_app_wallet,
                        "needs enabled: true beside it; a wallet comes from the KMS integration");
    if (!kms->enabled)
        return;
    if (!id && !registry && !kms->use_app_wallet)
        loader_error_at(l, kms,
                        "enabled, but without a mode: set kms_app_id and nova_app_registry, or "
                        "use_app_wallet: true");
    else if (id && !registry)
        loader_error_at(l, &kms->kms_app_id,
                        "goes together with nova_app_registry, which is not set");
    else if (registry && !id)
        loader_error_at(l, &kms->nova_app_registry,
                        "goes together with kms_app_id, which is not set");
    if (!id || !registry)
        return;
    if (kms->kms_app_id == 0)
        loader_error_at(l, &kms->kms_app_id, "must not be 0");
    check_registry(l, kms->nova_app_registry);
}

/* ---- helios_rpc (5.3) ---- */

static const char *const ethereum_networks[] = {"mainnet", "sepolia", "holesky"};
static const char *const opstack_networks[] = {"op-mainnet", "base", "base-sepolia",
                                               "worldchain", "zora", "unichain"};

static void lower_case(char *s)
{
    for (; *s; s++)
        if (*s >= 'A' && *s <= 'Z')
            *s = (char)(*s - 'A' + 'a');
}

static bool word_in(const char *word, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(word, words[i]) == 0)
            return true;
    return false;
}

static void check_network(struct loader *l, struct manifest_chain *c)
{
    bool opstack = c->kind == MANIFEST_CHAIN_OPSTACK;
    const char *const *ours = opstack ? opstack_networks : ethereum_networks;
    const char *const *others = opstack ? ethereum_networks : opstack_networks;
    size_t our_count = opstack ? ARRAY_LEN(opstack_networks) : ARRAY_LEN(ethereum_networks);
    size_t other_count = opstack ? ARRAY_LEN(ethereum_networks) : ARRAY_LEN(opstack_networks);
    const char *list = opstack ? "op-mainnet, base, base-sepolia, worldchain, zora, unichain"
                               : "mainnet, sepolia, holesky";
    char text[SHOWN_SIZE];
    const char *near;

    lower_case(trim(c->network));
    if (word_in(c->network, ours, our_count))
        return;
    shown(slice_str(c->network), text);
    near = text_nearest_word(c->network, ours, our_count);
    if (word_in(c->network, others, other_count))
        loader_error_at(l, &c->network, "\"%s\" belongs to kind: %s; %s has %s", text,
                        opstack ? "ethereum" : "opstack", opstack ? "opstack" : "ethereum", list);
    else if (near)
        loader_error_at(l, &c->network, "\"%s\" is not known; did you mean \"%s\"?", text, near);
    else
        loader_error_at(l, &c->network, "\"%s\" is not known; %s has %s", text,
                        opstack ? "opstack" : "ethereum", list);
}

static bool same_chain_name(const char *a, const char *b)
{
    AUTO_FREE char *x = xstrdup(a), *y = xstrdup(b);

    return strcasecmp(trim(x), trim(y)) == 0;
}

static void check_helios(struct loader *l)
{
    struct manifest_helios *helios = &l->m->helios_rpc;
    struct manifest_chain *chains = helios->chains.items;

    if (!helios->enabled)
        return;
    if (helios->chains.count == 0 && !refused(l, &helios->chains, chains))
        loader_error_at(l, written(l, &helios->chains) ? (void *)&helios->chains : (void *)helios,
                        "enabled, but there is no entry in chains");
    for (size_t i = 0; i < helios->chains.count; i++) {
        struct manifest_chain *c = &chains[i];

        if (c->network && c->kind != MANIFEST_CHAIN_UNKNOWN)
            check_network(l, c);
        if (c->network_id && is_blank(c->network_id))
            loader_error_at(l, &c->network_id, "must not be blank; leave the key out instead");
        for (size_t j = 0; j < i && c->name && l->problems->errors < 100; j++)
            if (chains[j].name && same_chain_name(chains[j].name, c->name))
                loader_error_at(l, &c->name, "is the name of helios_rpc.chains[%zu] already", j);
    }
}

/* ---- ports (5.5, 8.1 numbers 3, 4 and 11) ---- */

/* A listener on the enclave's loopback. */
struct listener {
    uint16_t port;
    const void *member; /* where the port is written, if it is */
    char what[64];
};

struct listeners {
    struct listener *items;
    size_t count;
};

static void add_listener(struct listeners *ls, uint16_t port, const void *member, const char *what)
{
    if (!port)
        return;
    ls->items[ls->count].port = port;
    ls->items[ls->count].member = member;
    snprintf(ls->items[ls->count].what, sizeof(ls->items[0].what), "%s", what);
    ls->count++;
}

static struct listeners collect_listeners(const struct manifest *m)
{
    const struct manifest_chain_list *chains = &m->helios_rpc.chains;
    struct listeners ls = {xcalloc(3 + chains->count, sizeof(*ls.items)), 0};
    bool own_aux = m->aux_api.listen_port != 0;
    char what[64];

    if (m->api.present)
        add_listener(&ls, m->api.listen_port, &m->api.listen_port,
                     "the Capsule API (api.listen_port)");
    add_listener(&ls, manifest_aux_port(m), own_aux ? &m->aux_api.listen_port : &m->api.listen_port,
                 own_aux ? "the auxiliary API (aux_api.listen_port)"
                         : "the auxiliary API (api.listen_port + 1)");
    if (manifest_egress_enabled(m))
        add_listener(&ls, m->egress.proxy_port, &m->egress.proxy_port,
                     "the egress proxy (egress.proxy_port)");
    for (size_t i = 0; manifest_helios_active(m) && i < chains->count; i++) {
        snprintf(what, sizeof(what), "the light client of helios_rpc.chains[%zu]", i);
        add_listener(&ls, chains->items[i].local_rpc_port, &chains->items[i].local_rpc_port, what);
    }
    return ls;
}

static void check_collisions(struct loader *l, const struct listeners *ls)
{
    uint8_t taken[65536 / 8] = {0};

    for (size_t i = 0; i < ls->count; i++) {
        const struct listener *b = &ls->items[i], *a = ls->items;

        if (!(taken[b->port / 8] & 1 << b->port % 8)) {
            taken[b->port / 8] |= (uint8_t)(1 << b->port % 8);
            continue;
        }
        while (a->port != b->port)
            a++;
        /* A default is not in the file: then it is told at the written one of the two. */
        loader_error_at(l, written(l, b->member) ? b->member : a->member,
                        "%s and %s both take port %u; change one of them", a->what, b->what,
                        b->port);
    }
}

static const struct listener *find_listener(const struct listeners *ls, uint16_t port)
{
    for (size_t i = 0; i < ls->count; i++)
        if (ls->items[i].port == port)
            return &ls->items[i];
    return NULL;
}

/* Names the risk of an ingress port that leads to a service of ours. */
static void check_exposure(struct loader *l, const struct manifest_ingress *in,
                           const struct listeners *ls)
{
    const struct manifest *m = l->m;
    const struct listener *target = find_listener(ls, in->listen_port);

    if (!target || in->listen_port == manifest_aux_port(m))
        return;
    if (m->api.present && in->listen_port == m->api.listen_port)
        loader_warn_at(l, &in->listen_port,
                       "publishes the whole Capsule API: whoever reaches the port can sign, "
                       "decrypt and attest in the app's name; publish the auxiliary API (port %u) "
                       "instead",
                       manifest_aux_port(m));
    else if (manifest_egress_enabled(m) && in->listen_port == m->egress.proxy_port)
        loader_warn_at(l, &in->listen_port,
                       "publishes the egress proxy: whoever reaches the port can go wherever the "
                       "app may");
    else
        loader_warn_at(l, &in->listen_port,
                       "publishes %s: whoever reaches the port can use it and its upstream node",
                       target->what);
}

static void check_ingress(struct loader *l, const struct listeners *ls)
{
    const struct manifest_ingress_list *in = &l->m->ingress;
    uint8_t taken[65536 / 8] = {0};

    for (size_t i = 0; i < in->count; i++) {
        uint16_t port = in->items[i].listen_port;

        if (!port)
            continue;
        if (taken[port / 8] & 1 << port % 8)
            loader_error_at(l, &in->items[i].listen_port, "%u is in ingress already", port);
        else
            check_exposure(l, &in->items[i], ls);
        taken[port / 8] |= (uint8_t)(1 << port % 8);
    }
}

static void check_ports(struct loader *l)
{
    struct manifest *m = l->m;
    struct listeners ls;

    if (m->aux_api.present && !m->api.present)
        loader_error_at(l, &m->aux_api, "needs api; the auxiliary API is a part of it");
    if (m->api.present && m->api.listen_port == UINT16_MAX && !written(l, &m->aux_api.listen_port))
        loader_error_at(l, &m->api.listen_port,
                        "the auxiliary API takes the next port, and there is none above 65535; "
                        "set aux_api.listen_port");
    ls = collect_listeners(m);
    check_collisions(l, &ls);
    check_ingress(l, &ls);
    free(ls.items);
}

/* ---- egress (8.1 number 12), and the rest of 5.5 ---- */

static void check_egress(struct loader *l)
{
    struct manifest_egress *egress = &l->m->egress;

    if (egress->deny.count > 0 && egress->allow.count == 0 &&
        !refused(l, &egress->allow, egress->allow.items))
        loader_warn_at(l, &egress->deny,
                       "has no effect: without an entry in allow, egress is off altogether");
    l->m->policy.allow_private = egress->allow_private;
}

static void check_registry_mode(struct loader *l)
{
    const struct manifest *m = l->m;

    if (!manifest_kms_registry_mode(m))
        return;
    if (manifest_helios_active(m))
        for (size_t i = 0; i < m->helios_rpc.chains.count; i++)
            if (m->helios_rpc.chains.items[i].local_rpc_port == MANIFEST_KMS_HELIOS_PORT)
                return;
    loader_error_at(l, &m->kms_integration.nova_app_registry,
                    "the registry is read through the light client: enable helios_rpc with a "
                    "chain on local_rpc_port: %d",
                    MANIFEST_KMS_HELIOS_PORT);
}

void rules_check(struct loader *l)
{
    check_storage(l);
    check_kms(l);
    check_helios(l);
    check_egress(l);
    check_ports(l);
    check_registry_mode(l);
}
