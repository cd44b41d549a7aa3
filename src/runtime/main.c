/*
 * capsule-runtime: the first process of an enclave. It serves status and log, starts the services
 * and the app, and stays until the host has taken the app's result. All of that is the work of a
 * child; the first process itself is its guard (enclave/guard.h).
 */
#include "base/clock.h"
#include "base/file.h"
#include "config.h"
#include "crypto/library.h"
#include "enclave/bootstrap.h"
#include "enclave/guard.h"
#include "runtime/runtime.h"

#include <event2/event.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void on_time(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg; /* waking the loop is all it does */
}

bool runtime_wait(struct runtime *rt, bool (*done)(const struct runtime *rt), int64_t timeout_ms)
{
    struct timeval tv = clock_timeval(timeout_ms);
    int64_t deadline = clock_mono_ms() + timeout_ms;
    struct event *timer = NULL;
    bool is_done;

    if (timeout_ms >= 0) {
        timer = evtimer_new(rt->base, on_time, NULL);
        if (!timer)
            abort(); /* out of memory */
        event_add(timer, &tv);
    }
    while (!(is_done = done(rt)) && (timeout_ms < 0 || clock_mono_ms() < deadline))
        event_base_loop(rt->base, EVLOOP_ONCE);
    if (timer)
        event_free(timer);
    return is_done;
}

/* ---- what the services tell us ---- */

static void on_app_ended(void *arg, int wait_status)
{
    struct runtime *rt = arg;

    rt->app_over = true;
    rt->wait_status = wait_status;
}

static void on_swept(void *arg)
{
    struct runtime *rt = arg;

    rt->swept = true;
}

static void on_cancelled(void *arg)
{
    struct runtime *rt = arg;

    rt->cancelled = true;
}

static void on_stop_command(void *arg, const struct host_command *cmd)
{
    struct runtime *rt = arg;

    log_info("runtime", "the host asks to stop");
    if (cmd->has_grace)
        supervisor_stop_app(rt->supervisor, cmd->grace_ms);
    else
        supervisor_stop_app_by_grace(rt->supervisor);
}

static bool app_over(const struct runtime *rt)
{
    return rt->app_over;
}

static bool swept(const struct runtime *rt)
{
    return rt->swept || rt->cancelled;
}

static bool mounts_settled(const struct runtime *rt)
{
    return rt->cancelled || mounts_closed(rt->mounts);
}

static bool ingress_empty(const struct runtime *rt)
{
    return rt->cancelled || !rt->ingress || enclave_ingress_open(rt->ingress) == 0;
}

static bool taken(const struct runtime *rt)
{
    return rt->cancelled ||
           (status_server_taken(rt->status) && (!rt->log || log_server_done(rt->log)));
}

/* ---- the start ---- */

/* What the errors of everything later are reported through. */
static int open_link(struct runtime *rt, struct error *err)
{
    const struct supervisor_spec supervisor = {.base = rt->base,
                                               .grace_ms = RUNTIME_GRACE_MS,
                                               .only_from = rt->guard,
                                               .owns_all = rt->guard == 1,
                                               .app_ended = on_app_ended,
                                               .swept = on_swept,
                                               .cancelled = on_cancelled,
                                               .arg = rt};
    struct status_server_spec status = {
        .base = rt->base, .stop = on_stop_command, .stats = runtime_stats_format, .arg = rt};

    if (supervisor_new(&supervisor, &rt->supervisor, err) < 0 ||
        carrier_open(rt->base, &rt->options.carrier, &rt->carrier, err) < 0)
        return -1;
    status.carrier = rt->carrier;
    return status_server_start(&status, &rt->status, err);
}

static int open_log(struct runtime *rt, struct error *err)
{
    if (rt->options.no_console)
        return 0;
    if (log_server_start(rt->base, rt->carrier, &rt->log, err) < 0)
        return -1;
    status_server_set_log2(rt->status, true);
    log_set_fd(log_server_own_fd(rt->log));
    return 0;
}

static int load_manifest(struct runtime *rt, struct error *err)
{
    AUTO_FREE char *path = xasprintf("%s/capsule.yaml", rt->options.config_dir);
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};

    if (manifest_load_file(path, 0, &rt->manifest, &problems, err) < 0)
        return -1;
    supervisor_set_grace(rt->supervisor, stop_grace_of_secs(rt->manifest->runtime.stop_grace_secs));
    if (rt->log && rt->manifest->runtime.logs == MANIFEST_LOGS_DISCARD)
        log_server_discard_app(rt->log);
    return manifest_check_available(rt->manifest, err);
}

/* The command line's command runs with our own environment, as root. */
static void launch_from_argv(struct runtime *rt)
{
    size_t argc = 0;

    while (rt->options.argv[argc])
        argc++;
    rt->launch.argv = xcalloc(argc + 1, sizeof(char *));
    for (size_t i = 0; i < argc; i++)
        rt->launch.argv[i] = xstrdup(rt->options.argv[i]);
    rt->launch.env = env_with(environ, (const char *const[]){NULL});
    rt->launch.cwd = xstrdup("/");
    rt->launch.user = xstrdup("");
}

static int load_launch(struct runtime *rt, struct error *err)
{
    AUTO_BUF struct buf text = BUF(LAUNCH_JSON_MAX);

    if (!rt->options.launch)
        launch_from_argv(rt);
    else if (file_read(rt->options.launch, &text, err) < 0 ||
             launch_from_json(buf_slice(&text), &rt->launch, err) < 0)
        return error_wrap(err, "reading the launch description");
    if (rt->options.work_dir) {
        free(rt->launch.cwd);
        rt->launch.cwd = xstrdup(rt->options.work_dir);
    }
    return 0;
}

static int start(struct runtime *rt, const struct error *usage, struct error *err)
{
    if (open_log(rt, err) < 0)
        return -1;
    log_info("runtime", "capsule-runtime " CAPSULE_VERSION,
             kv_uint("cid", carrier_cid(rt->carrier)));
    if (usage->kind != ERR_NONE) {
        *err = *usage;
        return -1;
    }
    if (load_manifest(rt, err) < 0 || load_launch(rt, err) < 0)
        return -1;
    status_server_set_phase(rt->status, PHASE_SERVICES);
    if (services_start(rt, err) < 0)
        return -1;
    status_server_set_phase(rt->status, PHASE_APP);
    return 0;
}

/* ---- the end ---- */

static void publish_end(struct runtime *rt)
{
    struct status status = {.kind = STATUS_EXITED};

    if (WIFSIGNALED(rt->wait_status)) {
        status.kind = STATUS_SIGNALED;
        status.signal = WTERMSIG(rt->wait_status);
        status.core = WCOREDUMP(rt->wait_status);
        log_info("app", "killed by a signal", kv_int("signal", status.signal));
    } else {
        status.code = WEXITSTATUS(rt->wait_status);
        log_info("app", "exited", kv_int("code", status.code));
    }
    /* The last lines first: the host stops reading soon after it knows. */
    if (rt->log)
        log_server_drain(rt->log);
    status_server_set(rt->status, &status);
}

static void sweep(struct runtime *rt)
{
    if (!rt->app_over || rt->sweeping)
        return;
    rt->sweeping = true;
    supervisor_sweep(rt->supervisor);
    if (!runtime_wait(rt, swept, RUNTIME_SWEEP_MS))
        log_warn("runtime", "processes of the app do not end");
}

/*
 * Before the host hears of the app's end, because it ends us soon after: what was written to its
 * mounts is there then.
 */
static void settle_mounts(struct runtime *rt)
{
    if (!rt->mounts)
        return;
    sweep(rt);
    mounts_close(rt->mounts);
    if (!runtime_wait(rt, mounts_settled, RUNTIME_FLUSH_MS) || !mounts_closed(rt->mounts))
        log_error("mounts", "the host does not take what was written last: it is lost");
}

static void wind_down(struct runtime *rt)
{
    services_drain(rt);
    sweep(rt);
    if (rt->log) {
        log_server_drain(rt->log);
        log_server_end(rt->log);
    }
    /* Clients may fetch what is on its way, but nobody waits for an idle one. */
    runtime_wait(rt, ingress_empty, RUNTIME_DRAIN_MS);
    services_stop(rt);
    if (!runtime_wait(rt, taken, RUNTIME_TAKEN_MS))
        log_warn("runtime", "nobody took the final status");
}

static void release(struct runtime *rt)
{
    log_set_fd(STDERR_FILENO);
    services_stop(rt);
    log_server_stop(rt->log);
    status_server_stop(rt->status);
    carrier_free(rt->carrier);
    supervisor_free(rt->supervisor);
    manifest_free(rt->manifest);
    launch_free(&rt->launch);
    event_base_free(rt->base);
}

/* Nothing of the launcher's may reach the app, and the app may not look into this process. */
static void harden(const struct options *o)
{
    struct rlimit files;

    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    prctl(PR_SET_DUMPABLE, 0);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (!o->no_bootstrap)
        bootstrap_shield_from_oom();
}

static void become_fatal(struct runtime *rt, const struct error *why)
{
    rt->fatal = true;
    log_error("runtime", why->msg);
    status_server_set_fatal(rt->status, why);
    rt->cancelled = false; /* from now on it means: end at once */
}

/* Both return the exit status. */
static int run(struct runtime *rt, const struct error *usage)
{
    struct error err;

    /* Whoever types this at a terminal reads it there; a host reads it in the status. */
    if (usage->kind != ERR_NONE)
        error_print("capsule-runtime", usage);
    rt->base = event_base_new();
    if (!rt->base)
        abort(); /* out of memory */
    if (open_link(rt, &err) < 0) {
        /* No way to tell a host. With a usage error that is most likely no wonder. */
        if (usage->kind == ERR_NONE)
            error_print("capsule-runtime", &err);
        release(rt);
        return usage->kind == ERR_NONE ? 1 : 2;
    }
    if (start(rt, usage, &err) < 0) {
        become_fatal(rt, &err);
    } else {
        runtime_wait(rt, app_over, -1);
        rt->cancelled = false;
        settle_mounts(rt);
        publish_end(rt);
    }
    wind_down(rt);
    release(rt);
    return rt->fatal ? 1 : 0;
}

/*
 * The runtime cannot tell the host about its own death, so its guard does. What the dead process
 * listened on is free again, and nothing of the app is left that could take it.
 */
static int report_death(struct runtime *rt, const struct error *why)
{
    struct error err;

    rt->base = event_base_new();
    if (!rt->base)
        abort(); /* out of memory */
    if (open_link(rt, &err) < 0) {
        error_print("capsule-runtime", why);
        error_print("capsule-runtime", &err);
        release(rt);
        return 1;
    }
    become_fatal(rt, why);
    wind_down(rt);
    release(rt);
    return 1;
}

/* The rest of the guard's life, and its exit status. */
static int outlive(struct runtime *rt, int wait_status)
{
    int signal = WTERMSIG(wait_status);
    struct error why;
    char name[16];

    if (WIFEXITED(wait_status))
        return WEXITSTATUS(wait_status);
    status_signal_name(signal, name);
    error_set(&why, ERR_INTERNAL, "capsule-runtime was killed by signal %d (%s)", signal, name);
    if (signal == SIGKILL)
        error_hint(&why, "the kernel does this when memory runs out: give the enclave more with "
                         "--memory-mb");
    return report_death(rt, &why);
}

/* The guard keeps what a carrier is opened with. */
static enum guard_side split(const struct carrier_config *c, int *wait_status, struct error *err)
{
    bool in_order = c->dir_fd < c->door_fd;
    const int keep[] = {in_order ? c->dir_fd : c->door_fd, in_order ? c->door_fd : c->dir_fd};

    return guard_split(keep, ARRAY_LEN(keep), wait_status, err);
}

int main(int argc, char **argv)
{
    struct runtime rt = {0};
    struct error usage = {.kind = ERR_NONE}, err;
    int wait_status = 0, status;
    enum guard_side side;
    bool is_machine;

    (void)options_parse(argc, argv, &rt.options, &usage);
    if (usage.kind == ERR_NONE && rt.options.help)
        return fputs(options_help, stdout) < 0;
    if (usage.kind == ERR_NONE && rt.options.version)
        return puts("capsule-runtime " CAPSULE_VERSION) < 0;
    is_machine =
        getpid() == 1 && rt.options.carrier.kind == CARRIER_VSOCK && !rt.options.no_bootstrap;
    if (is_machine)
        options_take_cmdline("/proc/cmdline", &rt.options);
    log_setup(log_level_of_verbosity(rt.options.verbosity), rt.options.log_format);
    harden(&rt.options);
    crypto_ignore_configuration();
    side = split(&rt.options.carrier, &wait_status, &err);
    if (side == GUARD_RUNTIME) {
        rt.guard = getppid();
        return run(&rt, &usage);
    }
    status = side == GUARD_OVER ? outlive(&rt, wait_status) : report_death(&rt, &err);
    if (is_machine)
        bootstrap_reboot();
    return status;
}
