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

#define BODY_MAX  ((size_t)1 << 20)
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

/*
 * What a login has left for the image's registry. Where a name without a host leads is the engine's
 * business; it gets credentials only when registries.conf names the one place.
 */
static void find_credentials(const char *image, struct credentials *out)
{
    AUTO_REFERENCE struct reference ref = {0};
    AUTO_FREE char *host = NULL;
    struct error why = {0};

    if (reference_parse(slice_str(image), &ref, &why) == 0)
        host = ref.host ? xstrdup(ref.host) : registry_default_host(&why);
    if (!host)
        log_debug("pull", "goes without credentials", kv_str("reason", why.msg));
    else if (credentials_find(host, ref.name, out, &why) < 0)
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
    struct container_bind binds[MANIFEST_MOUNTS_MAX];
    char **targets; /* strv, of the binds */
};

static void parts_free(struct parts **p)
{
    strv_free((*p)->targets);
    free(*p);
}

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

        if (!run_publishes(r, port))
            p->ports[p->port_count++] =
                (struct container_port){.address = "", .host = port, .inside = port};
    }
    return 0;
}

/* With those mounts that are prepared. */
static int create(struct run *r, const struct manifest *m, char id[CONTAINER_ID_MAX + 1],
                  struct error *err)
{
    CLEANUP(parts_free) struct parts *p = xcalloc(1, sizeof(*p));
    AUTO_BUF struct buf body = BUF(BODY_MAX);
    struct container_spec spec = {.image = r->image,
                                  .command = p->args,
                                  .run = r->record.id,
                                  .name = r->record.name,
                                  .ports = p->ports,
                                  .binds = p->binds,
                                  .device = access(CONTAINER_DEVICE, F_OK) == 0,
                                  .privileged = r->privileged,
                                  .host_network = r->host_network};

    fill_args(r, p);
    if (fill_ports(r, m, p, err) < 0)
        return -1;
    spec.port_count = p->port_count;
    spec.bind_count = run_mounts_binds(&r->mounts, p->binds, &p->targets);
    if (container_spec_format(&spec, &r->through, &body, err) < 0)
        return -1;
    return container_create(&r->through, &body, id, err);
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
    strv_free(r->record.ports);
    r->record.ports = NULL;
    for (size_t i = 0; i < r->ports.count; i++)
        strv_add(&r->record.ports, publish_format(&r->ports.items[i], text));
    run_save(r);
}

/*
 * What the image mounts is only known from a container of it, and what a container mounts from its
 * beginning: with --mount the first one is never started, and a second takes its place. `id` is
 * empty while there is none.
 */
static int give_mounts(struct run *r, const struct manifest *m, char id[CONTAINER_ID_MAX + 1],
                       struct error *err)
{
    if (r->mounts.count == 0)
        return 0;
    if (run_mounts_prepare(&r->mounts, err) < 0 ||
        run_mounts_check_seen(&r->mounts, &r->through, err) < 0 ||
        container_remove(&r->through, id, err) < 0)
        return -1;
    id[0] = '\0';
    if (create(r, m, id, err) < 0)
        return -1;
    note(r, id);
    return 0;
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
    run_save(r);
    if (up)
        up(arg);
    if (container_watch(&w, end, err) < 0)
        return -1;
    return end->signal ? 128 + end->signal : end->status;
}

/* Success becomes the failure; any other end stays what it is, and this is only told. */
static int end_badly(int status, const struct error *why, struct error *err)
{
    if (status == 0) {
        *err = *why;
        return -1;
    }
    error_print("capsule-cli", why);
    return status;
}

/* Mounts come after the container: nobody is in them then. */
static int tidy_up(struct run *r, const char *id, int status, struct error *err)
{
    struct error why = {0};

    if (id[0] && container_remove(&r->through, id, &why) < 0) {
        error_hint(&why, "remove it when the engine is back: capsule-cli prune");
        status = end_badly(status, &why, err);
    }
    why = (struct error){0};
    if (run_mounts_release(&r->mounts, &why) < 0)
        status = end_badly(status, &why, err);
    return status;
}

int run_container(struct run *r, const struct manifest *m, int signals, void (*up)(void *arg),
                  void *arg, struct error *err)
{
    char id[CONTAINER_ID_MAX + 1] = "";
    struct container_end end = {0};
    int status = have_image(r, signals, err);

    if (status != 0)
        return status < 0 ? -1 : 128 + status;
    if (access(CONTAINER_DEVICE, F_OK) < 0)
        log_warn("run", "this machine has no " CONTAINER_DEVICE
                        ", and without it no Nitro enclave starts; capsule-cli doctor tells more");
    if (create(r, m, id, err) < 0)
        return -1;
    note(r, id);
    if (run_heed_packed(r, id, err) < 0 || give_mounts(r, m, id, err) < 0)
        return tidy_up(r, id, -1, err);
    log_debug("run", "container", kv_str("id", id), kv_str("engine", r->through.socket));
    status = live(r, id, signals, up, arg, &end, err);
    return tidy_up(r, id, status, err);
}
