#include "base/log.h"
#include "enclave/bootstrap.h"
#include "nsm/nsm.h"
#include "runtime/runtime.h"

#define SEED_BYTES  256
#define NSM_DIAL_MS 10000

/* ---- the security module ---- */

static int dial_soft_nsm(void *arg, struct error *err)
{
    const struct runtime *rt = arg;
    uint32_t port;

    if (vsock_host_port(carrier_cid(rt->carrier), VSOCK_OFFSET_NSM, &port, err) < 0)
        return -1;
    return carrier_dial_wait(rt->carrier, port, NSM_DIAL_MS, err);
}

/* A real module always wins: the launcher's word for the soft one is not to be trusted beside it.
 */
static int start_nsm(struct runtime *rt, struct error *err)
{
    struct error why;

    rt->nsm = nsm_open_device(NULL, &why);
    if (rt->nsm)
        return 0;
    if (rt->options.soft_nsm && why.kind == ERR_NOT_FOUND) {
        log_warn("nsm", "soft NSM: attestations are signed by this machine's development root, "
                        "nothing here is confidential");
        rt->nsm = nsm_open_stream(dial_soft_nsm, rt, NSM_STREAM_TIMEOUT_MS);
        return 0;
    }
    if (rt->options.no_bootstrap)
        return 0;
    *err = why;
    return -1;
}

static void stop_nsm(struct runtime *rt)
{
    nsm_close(rt->nsm);
    rt->nsm = NULL;
}

/* ---- loopback and random pool ---- */

static int start_machine(struct runtime *rt, struct error *err)
{
    uint8_t seed[SEED_BYTES];
    int rc;

    if (rt->options.no_bootstrap)
        return 0;
    if (bootstrap_loopback(err) < 0)
        return -1;
    /* On the UNIX carrier the kernel is the host's own: its pool needs nothing from us. */
    if (rt->options.carrier.kind == CARRIER_UNIX)
        return 0;
    rc = nsm_random(rt->nsm, seed, sizeof(seed), err);
    if (rc == 0)
        rc = bootstrap_entropy(slice_of(seed, sizeof(seed)), rt->options.soft_nsm, err);
    mem_wipe(seed, sizeof(seed));
    return rc;
}

/* ---- host mounts ---- */

static bool mounts_tried(const struct runtime *rt)
{
    return rt->cancelled || mounts_opened(rt->mounts);
}

static int start_mounts(struct runtime *rt, struct error *err)
{
    const struct mounts_spec spec = {.base = rt->base,
                                     .carrier = rt->carrier,
                                     .list = &rt->manifest->storage.mounts,
                                     .given = rt->options.mount_fds,
                                     .given_count = rt->options.mount_fds_count};

    if (spec.list->count == 0)
        return 0;
    if (mounts_start(&spec, &rt->mounts, err) < 0)
        return -1;
    /* Each step on the way has a limit of its own. */
    return runtime_wait(rt, mounts_tried, -1) && mounts_opened(rt->mounts)
               ? mounts_result(rt->mounts, err)
               : 0;
}

static void stop_mounts(struct runtime *rt)
{
    mounts_stop(rt->mounts);
    rt->mounts = NULL;
}

/* ---- egress ---- */

static int start_egress(struct runtime *rt, struct error *err)
{
    const struct manifest_egress *m = &rt->manifest->egress;
    const struct enclave_egress_config config = {
        .policy = &rt->manifest->policy, .carrier = rt->carrier, .proxy_port = m->proxy_port};

    if (!manifest_egress_enabled(rt->manifest))
        return 0;
    return enclave_egress_start(rt->base, &config, &rt->egress, err);
}

static void drain_egress(struct runtime *rt)
{
    if (rt->egress)
        enclave_egress_drain(rt->egress);
}

static void stop_egress(struct runtime *rt)
{
    enclave_egress_stop(rt->egress);
    rt->egress = NULL;
}

/* ---- clock ---- */

static bool clock_tried(const struct runtime *rt)
{
    return rt->cancelled || clock_client_tried(rt->clock);
}

static bool clock_synced(const struct runtime *rt)
{
    return rt->cancelled || clock_client_stats_of(rt->clock).synced;
}

static int start_clock(struct runtime *rt, struct error *err)
{
    const struct manifest_clock_sync *m = &rt->manifest->clock_sync;
    const struct clock_client_spec spec = {.base = rt->base,
                                           .carrier = rt->carrier,
                                           .interval_secs = m->interval_secs,
                                           .max_step_secs = m->max_step_secs,
                                           .measure_only = rt->options.clock_measure};

    (void)err;
    if (!m->enabled)
        return 0;
    log_info("clock", spec.measure_only ? "comparing with the host" : "following the host",
             kv_uint("interval_secs", spec.interval_secs));
    rt->clock = clock_client_start(&spec);
    /* Certificates look invalid to an app whose clock is at boot time, hence the wait. */
    if (!spec.measure_only)
        runtime_wait(rt, clock_tried, 2000);
    if (m->wait_secs && !runtime_wait(rt, clock_synced, (int64_t)m->wait_secs * 1000))
        log_warn("clock", "starting the app without clock sync",
                 kv_uint("waited_secs", m->wait_secs));
    return 0;
}

static void stop_clock(struct runtime *rt)
{
    clock_client_stop(rt->clock);
    rt->clock = NULL;
}

/* ---- Capsule API ---- */

static bool says_yes(const char *text)
{
    static const char *const yes[] = {"1", "true", "yes", "on"};
    const char *space = " \t\r\n";
    struct slice value = slice_str(text + strspn(text, space));

    while (value.len && strchr(space, value.ptr[value.len - 1]))
        value.len--;
    for (size_t i = 0; i < ARRAY_LEN(yes); i++)
        if (slice_equal_str_nocase(value, yes[i]))
            return true;
    return false;
}

/*
 * The switch that lets the reference draw its keys without a security module. It is for debugging,
 * which no manifest of this version can ask for: an app's image must not weaken its keys with it.
 */
static void refuse_weak_rng(void)
{
    const char *name = "CAPSULE_RUNTIME_ALLOW_WEAK_RNG_FALLBACK", *text = getenv(name);

    if (text && says_yes(text))
        log_warn("api", "refused: keys are drawn from the security module or not at all",
                 kv_str("variable", name));
}

static int start_api(struct runtime *rt, struct error *err)
{
    const struct manifest *m = rt->manifest;
    const struct capsule_api_config config = {
        .port = m->api.listen_port, .aux_port = manifest_aux_port(m), .nsm = rt->nsm};

    if (!m->api.present)
        return 0;
    refuse_weak_rng();
    if (!rt->nsm)
        return error_set(err, ERR_UNSUPPORTED, "the Capsule API needs a security module");
    return capsule_api_start(rt->base, &config, &rt->api, err);
}

static void drain_api(struct runtime *rt)
{
    capsule_api_drain(rt->api);
}

static void stop_api(struct runtime *rt)
{
    capsule_api_stop(rt->api);
    rt->api = NULL;
}

/* ---- ingress ---- */

static int start_ingress(struct runtime *rt, struct error *err)
{
    const struct manifest_ingress_list *list = &rt->manifest->ingress;
    AUTO_FREE uint16_t *ports = xcalloc(list->count, sizeof(*ports));

    for (size_t i = 0; i < list->count; i++) {
        ports[i] = list->items[i].listen_port;
        log_info("ingress", "open", kv_uint("port", ports[i]));
    }
    return enclave_ingress_start(rt->base, rt->carrier, ports, list->count, &rt->ingress, err);
}

static void drain_ingress(struct runtime *rt)
{
    enclave_ingress_drain(rt->ingress);
}

static void stop_ingress(struct runtime *rt)
{
    enclave_ingress_stop(rt->ingress);
    rt->ingress = NULL;
}

/* ---- app ---- */

static int start_app(struct runtime *rt, struct error *err)
{
    const struct manifest *m = rt->manifest;
    bool as_image = m->runtime.user == MANIFEST_USER_IMAGE;
    char **env = env_with_proxy(rt->launch.env ? rt->launch.env : (char *[]){NULL},
                                manifest_egress_enabled(m) ? m->egress.proxy_port : 0);
    struct user user;
    struct app_spec spec = {.argv = rt->launch.argv,
                            .env = env,
                            .cwd = rt->launch.cwd,
                            .user = &user,
                            .output_fd = rt->log ? log_server_app_fd(rt->log) : -1};
    int rc = user_resolve_files(as_image ? rt->launch.user : "", "", &user, err);

    if (rc == 0)
        rc = supervisor_start_app(rt->supervisor, &spec, err);
    env_free(env);
    if (rc < 0)
        return -1;
    log_info("app", "started", kv_str("program", rt->launch.argv[0]), kv_uint("uid", user.uid));
    enclave_ingress_app_started(rt->ingress);
    return 0;
}

/* spec/runtime.md section 4.2: the order must hold. */
const struct service runtime_services[] = {
    {"nsm", start_nsm, NULL, stop_nsm},
    {"machine", start_machine, NULL, NULL},
    {"mounts", start_mounts, NULL, stop_mounts},
    {"egress", start_egress, drain_egress, stop_egress},
    {"clock", start_clock, NULL, stop_clock},
    {"api", start_api, drain_api, stop_api},
    {"ingress", start_ingress, drain_ingress, stop_ingress},
    {"app", start_app, NULL, NULL},
    {0},
};

int services_start(struct runtime *rt, struct error *err)
{
    for (const struct service *s = runtime_services; s->name; s++) {
        if (rt->cancelled)
            return error_set(err, ERR_INTERNAL, "stopped before the app was started");
        log_debug("runtime", "starting", kv_str("service", s->name));
        if (s->start(rt, err) < 0) {
            if (s->stop)
                s->stop(rt);
            return -1;
        }
        rt->started++;
    }
    return 0;
}

void services_drain(struct runtime *rt)
{
    for (size_t i = rt->started; i-- > 0;)
        if (runtime_services[i].drain)
            runtime_services[i].drain(rt);
}

void services_stop(struct runtime *rt)
{
    for (; rt->started > 0; rt->started--)
        if (runtime_services[rt->started - 1].stop)
            runtime_services[rt->started - 1].stop(rt);
}
