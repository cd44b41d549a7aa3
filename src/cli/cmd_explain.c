/* capsule-cli explain: what a manifest comes to, in tables for people. */
#include "cli/cli.h"
#include "cli/manifest_input.h"
#include "cli/table.h"
#include "vsock/addr.h"

#include <getopt.h>

extern const struct subcommand cmd_explain;

/* ---- sections ---- */

static const char *place_of_port(const struct manifest *m, uint16_t port)
{
    if (m->api.present && port == m->api.listen_port)
        return "Capsule API";
    if (port == manifest_aux_port(m))
        return "auxiliary API";
    if (manifest_egress_enabled(m) && port == m->egress.proxy_port)
        return "egress proxy";
    return "app";
}

/* A listener of ours on the enclave's loopback. */
static void local_service(struct table *t, const struct manifest *m, const char *what,
                          uint16_t port)
{
    bool published = false;

    for (size_t i = 0; i < m->ingress.count; i++)
        published |= m->ingress.items[i].listen_port == port;
    table_cell(t, "%s", what);
    table_cell(t, "127.0.0.1:%u", port);
    table_cell(t, "%s", published ? "through ingress" : "not reachable");
    table_cell(t, "%s", "");
}

static void print_ports(const struct manifest *m)
{
    AUTO_TABLE struct table t = {.columns = 4};

    printf("\nPORTS\n");
    table_cell(&t, "SERVICE");
    table_cell(&t, "INSIDE THE ENCLAVE");
    table_cell(&t, "OUTSIDE");
    table_cell(&t, "PUBLISH WITH");
    for (size_t i = 0; i < m->ingress.count; i++) {
        const struct manifest_ingress *in = &m->ingress.items[i];

        table_cell(&t, "ingress to %s", place_of_port(m, in->listen_port));
        table_cell(&t, "127.0.0.1:%u%s", in->listen_port,
                   in->proxy_protocol == MANIFEST_PROXY_PROTOCOL_V2 ? ", PROXY v2" : "");
        table_cell(&t, "container port %u", in->listen_port);
        table_cell(&t, "-p %u:%u", in->listen_port, in->listen_port);
    }
    if (m->api.present) {
        local_service(&t, m, "Capsule API", m->api.listen_port);
        local_service(&t, m, "auxiliary API", manifest_aux_port(m));
    }
    if (manifest_egress_enabled(m))
        local_service(&t, m, "egress proxy", m->egress.proxy_port);
    for (size_t i = 0; manifest_helios_active(m) && i < m->helios_rpc.chains.count; i++)
        local_service(&t, m, "light client RPC", m->helios_rpc.chains.items[i].local_rpc_port);
    table_cell(&t, "status stream");
    table_cell(&t, "vsock %u", VSOCK_PORT_STATUS);
    table_cell(&t, "host only");
    table_cell(&t, "%s", "");
    table_cell(&t, "log stream");
    table_cell(&t, "vsock %u", VSOCK_PORT_LOG);
    table_cell(&t, "host only");
    table_cell(&t, "%s", "");
    table_print(&t);
    if (m->ingress.count == 0)
        printf("  No ingress: nothing in the enclave can be reached from outside.\n");
}

static void print_run_line(const struct manifest *m)
{
    printf("\nRUN\n  capsule-cli run -f ");
    table_put_text(strcmp(m->file, "<stdin>") == 0 ? "FILE" : m->file);
    for (size_t i = 0; i < m->ingress.count; i++)
        printf(" -p %u:%u", m->ingress.items[i].listen_port, m->ingress.items[i].listen_port);
    for (size_t i = 0; i < m->storage.mounts.count; i++)
        if (m->storage.mounts.items[i].required)
            printf(" --mount %s=HOST_DIR", m->storage.mounts.items[i].name);
    putchar('\n');
}

static void print_rules(struct table *t, const char *verdict, const struct policy_rule *rules,
                        size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct policy_rule *r = &rules[i];

        table_cell(t, "%s", verdict);
        table_cell(t, "%s", r->kind == POLICY_RULE_NAME ? "names" : "addresses");
        table_cell(t, "%s", r->text);
        if (r->port_low == 1 && r->port_high == UINT16_MAX)
            table_cell(t, "any");
        else if (r->port_low == r->port_high)
            table_cell(t, "%u", r->port_low);
        else
            table_cell(t, "%u-%u", r->port_low, r->port_high);
    }
}

static void print_egress(const struct manifest *m)
{
    AUTO_TABLE struct table t = {.columns = 4};
    char uri[MANIFEST_PROXY_URI_SIZE];

    manifest_proxy_uri(m, uri);
    if (!uri[0]) {
        printf("\nEGRESS: off, the app cannot reach anything outside\n");
        return;
    }
    printf("\nEGRESS: through %s, deny before allow\n", uri);
    table_cell(&t, "RULE");
    table_cell(&t, "APPLIES TO");
    table_cell(&t, "PATTERN");
    table_cell(&t, "PORTS");
    print_rules(&t, "deny", m->policy.deny, m->policy.deny_count);
    print_rules(&t, "allow", m->policy.allow, m->policy.allow_count);
    table_cell(&t, "deny");
    table_cell(&t, "all");
    table_cell(&t, "everything else");
    table_cell(&t, "any");
    table_print(&t);
    printf("  Allowed names may %sresolve to private addresses.\n",
           m->egress.allow_private ? "" : "not ");
}

static void print_mounts(const struct manifest *m)
{
    AUTO_TABLE struct table t = {.columns = 5};
    const struct manifest_mount_list *mounts = &m->storage.mounts;

    if (mounts->count == 0) {
        printf("\nMOUNTS: none\n");
        return;
    }
    printf("\nMOUNTS\n");
    table_cell(&t, "NAME");
    table_cell(&t, "PATH IN THE ENCLAVE");
    table_cell(&t, "SIZE");
    table_cell(&t, "NEEDED");
    table_cell(&t, "HOST VSOCK PORT");
    for (size_t i = 0; i < mounts->count; i++) {
        const struct manifest_mount *mount = &mounts->items[i];

        table_cell(&t, "%s", mount->name);
        table_cell(&t, "%s", mount->mount_path);
        table_cell(&t, "%llu MiB", (unsigned long long)mount->size_mb);
        table_cell(&t, "%s", mount->required ? "required" : "optional");
        table_cell(&t, "block + %zu", VSOCK_OFFSET_MOUNT + i);
    }
    table_print(&t);
}

static void print_host_block(const struct manifest *m)
{
    AUTO_TABLE struct table t = {.columns = 2};

    if (!manifest_egress_enabled(m) && !m->clock_sync.enabled && m->storage.mounts.count == 0)
        return;
    printf("\nHOST VSOCK PORTS: block = %u + %u * CID of the enclave\n", VSOCK_BLOCK_BASE,
           VSOCK_BLOCK_STRIDE);
    if (manifest_egress_enabled(m)) {
        table_cell(&t, "egress");
        table_cell(&t, "block + %u", VSOCK_OFFSET_EGRESS);
    }
    if (m->clock_sync.enabled) {
        table_cell(&t, "clock");
        table_cell(&t, "block + %u", VSOCK_OFFSET_CLOCK);
    }
    if (m->storage.mounts.count > 0) {
        table_cell(&t, "mounts");
        table_cell(&t, "block + %u to block + %zu", VSOCK_OFFSET_MOUNT,
                   VSOCK_OFFSET_MOUNT + m->storage.mounts.count - 1);
    }
    table_print(&t);
}

static void clock_row(const struct manifest *m, struct table *t)
{
    const struct manifest_clock_sync *c = &m->clock_sync;
    AUTO_BUF struct buf text = BUF(256);
    bool fits = buf_printf(&text, "every %llu s", (unsigned long long)c->interval_secs) == 0;

    if (c->wait_secs)
        fits &=
            buf_printf(&text, ", the app waits up to %u s for the first time", c->wait_secs) == 0;
    if (c->max_step_secs)
        fits &= buf_printf(&text, ", later steps at most %llu s",
                           (unsigned long long)c->max_step_secs) == 0;
    table_cell(t, "clock");
    table_cell(t, "%s", !c->enabled ? "not synchronised" : fits ? buf_cstr(&text) : "synchronised");
}

static void print_rest(const struct manifest *m)
{
    AUTO_TABLE struct table t = {.columns = 2};

    printf("\nENCLAVE\n");
    table_cell(&t, "app image");
    table_cell(&t, "%s", m->sources.app);
    table_cell(&t, "release image");
    table_cell(&t, "%s", m->target);
    table_cell(&t, "signature");
    table_cell(&t, "%s", m->signature.present ? m->signature.certificate : "none, so no PCR8");
    table_cell(&t, "resources");
    table_cell(&t, "%d vCPU, %d MiB", m->defaults.cpu_count, m->defaults.memory_mb);
    table_cell(&t, "app runs as");
    table_cell(&t, "%s, %u s from SIGTERM to SIGKILL",
               m->runtime.user == MANIFEST_USER_ROOT ? "root" : "the USER of its image",
               m->runtime.stop_grace_secs);
    table_cell(&t, "app output");
    table_cell(&t, "%s",
               m->runtime.logs == MANIFEST_LOGS_HOST ? "readable by the host" : "discarded");
    clock_row(m, &t);
    table_cell(&t, "Capsule API");
    table_cell(&t, "%s", m->api.present ? "on" : "off");
    table_cell(&t, "S3 storage");
    table_cell(&t, "%s", manifest_s3_active(m) ? m->storage.s3.bucket : "off");
    table_cell(&t, "KMS");
    table_cell(&t, "%s",
               !manifest_kms_active(m)         ? "off"
               : manifest_kms_registry_mode(m) ? "on, registry mode"
                                               : "on, app wallet only");
    table_cell(&t, "light client");
    table_cell(&t, "%s", manifest_helios_active(m) ? "on" : "off");
    table_print(&t);
}

static void explain(const struct manifest *m)
{
    table_put_text(m->name);
    printf(" (");
    table_put_text(m->file);
    printf(")\n");
    print_ports(m);
    print_egress(m);
    print_mounts(m);
    print_host_block(m);
    print_rest(m);
    print_run_line(m);
}

static int run(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"file", required_argument, NULL, 'f'},
        {0},
    };
    AUTO_MANIFEST struct manifest *m = NULL;
    const char *file = MANIFEST_DEFAULT_FILE;
    int c;

    while ((c = getopt_long(argc, argv, ":f:", options, NULL)) != -1) {
        if (c != 'f')
            return cli_option_error(&cmd_explain, c, argv, err);
        file = optarg;
    }
    if (optind < argc)
        return cli_usage_error(&cmd_explain, argv, err, "%s: unexpected; name a file with -f",
                               argv[optind]);
    if (cli_load_manifest(file, false, &m, err) < 0)
        return -1;
    explain(m);
    return 0;
}

const struct subcommand cmd_explain = {
    .name = "explain",
    .synopsis = "[-f FILE|-]",
    .summary = "Show the ports, policy, mounts and services of a manifest in tables",
    .help = "  -f, --file FILE  manifest to explain (default capsule.yaml); - is standard input\n",
    .run = run,
};
