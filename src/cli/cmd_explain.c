/* capsule-cli explain: what a manifest comes to, in tables for people. */
#include "cli/cli.h"
#include "cli/manifest_input.h"
#include "vsock/addr.h"

#include <getopt.h>

extern const struct subcommand cmd_explain;

/* ---- tables ---- */

#define COLUMNS_MAX 6

/* Cells are heap strings; the columns are as wide as their widest cell. */
struct table {
    char **cells;
    size_t columns;
    size_t count;
};

static void table_free(struct table *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->cells[i]);
    free(t->cells);
}
#define AUTO_TABLE CLEANUP(table_free)

__attribute__((format(printf, 2, 3))) static void cell(struct table *t, const char *fmt, ...)
{
    va_list ap;
    char *text;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        abort();
    va_end(ap);
    t->cells = xreallocarray(t->cells, t->count + 1, sizeof(*t->cells));
    t->cells[t->count++] = text;
}

/* Characters, not bytes: columns line up for names beyond ASCII, too. */
static size_t width_of(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += (*text & 0xc0) != 0x80;
    return n;
}

/* The manifest may be a stranger's: what a terminal would act on is shown as "?". */
static void put_text(const char *text)
{
    const uint8_t *p = (const uint8_t *)text;

    for (; *p; p++) {
        bool c1 = *p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0;

        putchar(c1 || *p < 0x20 || *p == 0x7f ? '?' : *p);
        p += c1;
    }
}

static void table_print(const struct table *t)
{
    size_t width[COLUMNS_MAX] = {0};

    for (size_t i = 0; i < t->count; i++)
        if (width_of(t->cells[i]) > width[i % t->columns])
            width[i % t->columns] = width_of(t->cells[i]);
    for (size_t row = 0; row < t->count; row += t->columns) {
        size_t last = t->columns;

        while (last > 1 && !t->cells[row + last - 1][0])
            last--;
        fputs("  ", stdout);
        for (size_t c = 0; c < last; c++) {
            const char *text = t->cells[row + c];
            size_t pad = c + 1 < last ? width[c] - width_of(text) + 2 : 0;

            put_text(text);
            printf("%*s", (int)pad, "");
        }
        putchar('\n');
    }
}

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
    cell(t, "%s", what);
    cell(t, "127.0.0.1:%u", port);
    cell(t, "%s", published ? "through ingress" : "not reachable");
    cell(t, "%s", "");
}

static void print_ports(const struct manifest *m)
{
    AUTO_TABLE struct table t = {.columns = 4};

    printf("\nPORTS\n");
    cell(&t, "SERVICE");
    cell(&t, "INSIDE THE ENCLAVE");
    cell(&t, "OUTSIDE");
    cell(&t, "PUBLISH WITH");
    for (size_t i = 0; i < m->ingress.count; i++) {
        const struct manifest_ingress *in = &m->ingress.items[i];

        cell(&t, "ingress to %s", place_of_port(m, in->listen_port));
        cell(&t, "127.0.0.1:%u%s", in->listen_port,
             in->proxy_protocol == MANIFEST_PROXY_PROTOCOL_V2 ? ", PROXY v2" : "");
        cell(&t, "container port %u", in->listen_port);
        cell(&t, "-p %u:%u", in->listen_port, in->listen_port);
    }
    if (m->api.present) {
        local_service(&t, m, "Capsule API", m->api.listen_port);
        local_service(&t, m, "auxiliary API", manifest_aux_port(m));
    }
    if (manifest_egress_enabled(m))
        local_service(&t, m, "egress proxy", m->egress.proxy_port);
    for (size_t i = 0; manifest_helios_active(m) && i < m->helios_rpc.chains.count; i++)
        local_service(&t, m, "light client RPC", m->helios_rpc.chains.items[i].local_rpc_port);
    cell(&t, "status stream");
    cell(&t, "vsock %u", VSOCK_PORT_STATUS);
    cell(&t, "host only");
    cell(&t, "%s", "");
    cell(&t, "log stream");
    cell(&t, "vsock %u", VSOCK_PORT_LOG);
    cell(&t, "host only");
    cell(&t, "%s", "");
    table_print(&t);
    if (m->ingress.count == 0)
        printf("  No ingress: nothing in the enclave can be reached from outside.\n");
}

static void print_run_line(const struct manifest *m)
{
    printf("\nRUN\n  capsule-cli run -f ");
    put_text(strcmp(m->file, "<stdin>") == 0 ? "FILE" : m->file);
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

        cell(t, "%s", verdict);
        cell(t, "%s", r->kind == POLICY_RULE_NAME ? "names" : "addresses");
        cell(t, "%s", r->text);
        if (r->port_low == 1 && r->port_high == UINT16_MAX)
            cell(t, "any");
        else if (r->port_low == r->port_high)
            cell(t, "%u", r->port_low);
        else
            cell(t, "%u-%u", r->port_low, r->port_high);
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
    cell(&t, "RULE");
    cell(&t, "APPLIES TO");
    cell(&t, "PATTERN");
    cell(&t, "PORTS");
    print_rules(&t, "deny", m->policy.deny, m->policy.deny_count);
    print_rules(&t, "allow", m->policy.allow, m->policy.allow_count);
    cell(&t, "deny");
    cell(&t, "all");
    cell(&t, "everything else");
    cell(&t, "any");
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
    cell(&t, "NAME");
    cell(&t, "PATH IN THE ENCLAVE");
    cell(&t, "SIZE");
    cell(&t, "NEEDED");
    cell(&t, "HOST VSOCK PORT");
    for (size_t i = 0; i < mounts->count; i++) {
        const struct manifest_mount *mount = &mounts->items[i];

        cell(&t, "%s", mount->name);
        cell(&t, "%s", mount->mount_path);
        cell(&t, "%llu MiB", (unsigned long long)mount->size_mb);
        cell(&t, "%s", mount->required ? "required" : "optional");
        cell(&t, "block + %zu", VSOCK_OFFSET_MOUNT + i);
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
        cell(&t, "egress");
        cell(&t, "block + %u", VSOCK_OFFSET_EGRESS);
    }
    if (m->clock_sync.enabled) {
        cell(&t, "clock");
        cell(&t, "block + %u", VSOCK_OFFSET_CLOCK);
    }
    if (m->storage.mounts.count > 0) {
        cell(&t, "mounts");
        cell(&t, "block + %u to block + %zu", VSOCK_OFFSET_MOUNT,
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
    cell(t, "clock");
    cell(t, "%s", !c->enabled ? "not synchronised" : fits ? buf_cstr(&text) : "synchronised");
}

static void print_rest(const struct manifest *m)
{
    AUTO_TABLE struct table t = {.columns = 2};

    printf("\nENCLAVE\n");
    cell(&t, "app image");
    cell(&t, "%s", m->sources.app);
    cell(&t, "release image");
    cell(&t, "%s", m->target);
    cell(&t, "signature");
    cell(&t, "%s", m->signature.present ? m->signature.certificate : "none, so no PCR8");
    cell(&t, "resources");
    cell(&t, "%d vCPU, %d MiB", m->defaults.cpu_count, m->defaults.memory_mb);
    cell(&t, "app runs as");
    cell(&t, "%s, %u s from SIGTERM to SIGKILL",
         m->runtime.user == MANIFEST_USER_ROOT ? "root" : "the USER of its image",
         m->runtime.stop_grace_secs);
    cell(&t, "app output");
    cell(&t, "%s", m->runtime.logs == MANIFEST_LOGS_HOST ? "readable by the host" : "discarded");
    clock_row(m, &t);
    cell(&t, "Capsule API");
    cell(&t, "%s", m->api.present ? "on" : "off");
    cell(&t, "S3 storage");
    cell(&t, "%s", manifest_s3_active(m) ? m->storage.s3.bucket : "off");
    cell(&t, "KMS");
    cell(&t, "%s",
         !manifest_kms_active(m)         ? "off"
         : manifest_kms_registry_mode(m) ? "on, registry mode"
                                         : "on, app wallet only");
    cell(&t, "light client");
    cell(&t, "%s", manifest_helios_active(m) ? "on" : "off");
    table_print(&t);
}

static void explain(const struct manifest *m)
{
    put_text(m->name);
    printf(" (");
    put_text(m->file);
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
