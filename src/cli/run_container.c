/* `capsule-cli run` through a container engine (spec/cli-and-build.md section 5). */
#include "base/log.h"
#include "base/strv.h"
#include "cli/cli.h"
#include "cli/run.h"
#include "container/life.h"
#include "container/spec.h"
#include "container/watch.h"
#include "oci/credentials.h"
#include "oci/reference.h"
#include "oci/registry_hosts.h"
#include "vsock/status.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define BODY_MAX  ((size_t)512 << 10)
#define ARGS_MAX  (16 + 2 * PUBLISH_MAX)
#define PORTS_MAX (PUBLISH_MAX + 256)

/* ---- the image ---- */

struct pulling {
    int signals;
    int signal; /* that ended it */
};

static bool is_stop(int sig)
{
    return sig == SIGINT || sig == SIGTERM || sig == SIGHUP;
}

/* A signal that asks us to stop, or 0. */
static int stop_asked(int signals)
{
    int sig;

    while ((sig = run_signals_next(signals)) != 0)
        if (is_stop(sig))
            return sig;
    return 0;
}

static bool on_pull_line(void *arg, const char *line)
{
    struct pulling *p = arg;

    if (line[0])
        log_info("pull", line);
    p->signal = stop_asked(p->signals);
    return p->signal == 0;
}

/* What a login has left for the image's registry; none is no error here, the registry decides. */
static void find_credentials(const char *image, struct credentials *out)
{
    AUTO_REFERENCE struct reference ref = {0};
    AUTO_FREE char *host = NULL;
    struct error why = {0};

    if (reference_parse(slice_str(image), &ref, &why) == 0)
        host = ref.host ? xstrdup(ref.host) : registry_default_host(&why);
    if (!host || credentials_find(host, ref.name, out, &why) < 0)
        log_warn("pull", "goes without credentials", kv_str("reason", why.msg));
}

/* 0, a signal that came meanwhile, or -1. */
static int have_image(const struct run *r, int signals, struct error *err)
{
    CLEANUP(credentials_free) struct credentials login = CREDENTIALS_NONE;
    struct pulling p = {.signals = signals};
    int rc = r->pull ? 0 : container_has_image(&r->through, r->image, err);

    if (rc != 0)
        return rc < 0 ? -1 : 0;
    log_info("run",
             r->pull ? "pulling the image" : "the engine does not have the image, pulling it",
             kv_str("image", r->image));
    find_credentials(r->image, &login);
    rc = container_pull(&r->through, r->image, login.found ? buf_cstr(&login.pair) : NULL,
                        on_pull_line, &p, err);
    return p.signal ? p.signal : rc;
}

/* ---- the container ---- */

struct parts {
    const char *args[ARGS_MAX];
    size_t arg_count;
    char cpus[16], memory[16];
    char texts[PUBLISH_MAX][PUBLISH_TEXT_SIZE];
    struct container_port ports[PORTS_MAX];
    size_t port_count;
};

static void add(struct parts *p, const char *word)
{
    if (p->arg_count + 1 < ARGS_MAX)
        p->args[p->arg_count++] = word;
}

/* Those of section 5.1 in its order; what it does not know only when it was asked for. */
static void fill_args(const struct run *r, struct parts *p)
{
    for (int i = 0; i < cli_verbosity && i < 2; i++)
        add(p, "-v");
    if (cli_log_format == LOG_JSON) {
        add(p, "--log-format");
        add(p, "json");
    }
    if (r->debug)
        add(p, "--debug-mode");
    if (r->cpu_count) {
        snprintf(p->cpus, sizeof(p->cpus), "%u", r->cpu_count);
        add(p, "--cpu-count");
        add(p, p->cpus);
    }
    if (r->memory_mb) {
        snprintf(p->memory, sizeof(p->memory), "%u", r->memory_mb);
        add(p, "--memory-mb");
        add(p, p->memory);
    }
    if (strcmp(r->launcher, "auto") != 0) {
        add(p, "--launcher");
        add(p, r->launcher);
    }
    for (size_t i = 0; r->host_network && i < r->ports.count; i++) {
        add(p, "-p");
        add(p, publish_format(&r->ports.items[i], p->texts[i]));
    }
}

static bool is_published(const struct run *r, uint16_t port)
{
    for (size_t i = 0; i < r->ports.count; i++)
        if (r->ports.items[i].enclave_port == port)
            return true;
    return false;
}

static int fill_ports(const struct run *r, const struct manifest *m, struct parts *p,
                      struct error *err)
{
    for (size_t i = 0; i < r->ports.count; i++)
        p->ports[p->port_count++] =
            (struct container_port){.address = r->ports.items[i].address,
                                    .host = r->ports.items[i].host_port,
                                    .inside = r->ports.items[i].enclave_port};
    if (!r->publish_all)
        return 0;
    if (!m) {
        error_set(err, ERR_USAGE, "--publish-all: the ports of %s are not known here", r->image);
        return error_hint(err, "name its manifest with -f, or each port with -p");
    }
    for (size_t i = 0; i < m->ingress.count && p->port_count < PORTS_MAX; i++) {
        uint16_t port = m->ingress.items[i].listen_port;

        if (!is_published(r, port))
            p->ports[p->port_count++] =
                (struct container_port){.address = "", .host = port, .inside = port};
    }
    return 0;
}

static int create(struct run *r, const struct manifest *m, char id[CONTAINER_ID_MAX + 1],
                  struct error *err)
{
    AUTO_FREE struct parts *p = xcalloc(1, sizeof(*p));
    AUTO_BUF struct buf body = BUF(BODY_MAX);
    struct container_spec spec = {.image = r->image,
                                  .command = p->args,
                                  .run = r->record.id,
                                  .name = r->record.name,
                                  .ports = p->ports,
                                  .device = access(CONTAINER_DEVICE, F_OK) == 0,
                                  .privileged = r->privileged,
                                  .host_network = r->host_network};

    fill_args(r, p);
    if (fill_ports(r, m, p, err) < 0)
        return -1;
    spec.port_count = p->port_count;
    if (!spec.device)
        log_warn("run", "this machine has no " CONTAINER_DEVICE
                        ", and without it no Nitro enclave starts; capsule-cli doctor tells more");
    if (container_spec_format(&spec, &r->through, &body, err) < 0)
        return -1;
    return container_create(&r->through, &body, id, err);
}

static void save(struct run *r)
{
    struct error why = {0};

    if (run_place_save(&r->place, &r->record, &why) < 0)
        log_warn("run", "this run's record is out of date", kv_str("reason", why.msg));
}

static void note(struct run *r, const char *id)
{
    char text[PUBLISH_TEXT_SIZE];

    free(r->record.engine);
    free(r->record.container);
    free(r->record.launcher);
    r->record.engine = xstrdup(r->through.socket);
    r->record.container = xstrdup(id);
    r->record.launcher = xstrdup(r->through.podman ? "podman" : "docker");
    for (size_t i = 0; i < r->ports.count; i++)
        strv_add(&r->record.ports, publish_format(&r->ports.items[i], text));
    save(r);
}

/* ---- its life ---- */

/* Started, followed, over. The exit status, or -1; `end` tells more. */
static int live(struct run *r, const char *id, int signals, void (*up)(void *arg), void *arg,
                struct container_end *end, struct error *err)
{
    struct container_watch w = {.engine = &r->through,
                                .id = id,
                                .signals = signals,
                                .grace_ms = stop_grace_of_secs(r->record.grace_secs)};

    end->signal = stop_asked(signals);
    if (end->signal)
        return 128 + end->signal;
    if (container_start(&r->through, id, err) < 0)
        return -1;
    r->record.up = true;
    save(r);
    if (up)
        up(arg);
    if (container_watch(&w, end, err) < 0)
        return -1;
    return end->signal ? 128 + end->signal : end->status;
}

int run_container(struct run *r, const struct manifest *m, int signals, void (*up)(void *arg),
                  void *arg, struct error *err)
{
    char id[CONTAINER_ID_MAX + 1];
    struct container_end end = {0};
    struct error why = {0};
    int status = have_image(r, signals, err);

    if (status != 0)
        return status < 0 ? -1 : 128 + status;
    if (create(r, m, id, err) < 0)
        return -1;
    note(r, id);
    run_heed_packed(r, id);
    log_debug("run", "container", kv_str("id", id), kv_str("engine", r->through.socket));
    status = live(r, id, signals, up, arg, &end, err);
    if (container_remove(&r->through, id, &why) == 0)
        return status;
    error_hint(&why, "remove it when the engine is back: capsule-cli prune");
    if (status == 0) {
        *err = why;
        return -1;
    }
    error_print("capsule-cli", &why);
    return status;
}
