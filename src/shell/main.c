/*
 * capsule-shell: the host side of one enclave. Serves what the enclave needs, has it started,
 * follows its log and status, and ends with the app's exit status.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "config.h"
#include "hostfs/process.h"
#include "shell/shell.h"
#include "version.h"

#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void on_time(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg; /* waking the loop is all it does */
}

bool shell_wait(struct shell *sh, bool (*done)(const struct shell *sh), int64_t timeout_ms)
{
    struct timeval tv = clock_timeval(timeout_ms);
    int64_t deadline = clock_mono_ms() + timeout_ms;
    struct event *timer = NULL;
    bool is_done;

    if (timeout_ms >= 0) {
        timer = evtimer_new(sh->base, on_time, NULL);
        if (!timer)
            abort(); /* out of memory */
        event_add(timer, &tv);
    }
    while (!(is_done = done(sh)) && (timeout_ms < 0 || clock_mono_ms() < deadline))
        event_base_loop(sh->base, EVLOOP_ONCE);
    if (timer)
        event_free(timer);
    return is_done;
}

/* ---- what the readers tell us ---- */

static bool is_known(const struct shell *sh)
{
    return status_is_final(&sh->final) || sh->failure.kind != ERR_NONE;
}

static void on_status(void *arg, const struct status *status)
{
    struct shell *sh = arg;

    /* An app that has ended was started before, whether or not we were told then. */
    if (!sh->app_reported && (status->kind == STATUS_RUNNING ? status->phase == PHASE_APP
                                                             : status->kind != STATUS_FATAL)) {
        sh->app_reported = true;
        shell_report(sh, "app", "started");
    }
    if (status_is_final(status)) {
        sh->final = *status;
        return;
    }
    log_debug("shell", "enclave", kv_str("phase", status_phase_name(status->phase)));
    if (status->phase == PHASE_APP && sh->ingress)
        host_ingress_ready(sh->ingress);
}

static void on_status_failed(void *arg, const struct error *why)
{
    struct shell *sh = arg;

    sh->failure = *why;
}

static void on_log_finished(void *arg)
{
    struct shell *sh = arg;

    sh->log_finished = true;
}

static void on_enclave_end(evutil_socket_t fd, short what, void *arg)
{
    struct shell *sh = arg;

    (void)fd;
    (void)what;
    sh->enclave_gone = true;
    event_del(sh->enclave_end);
}

static void on_console(evutil_socket_t fd, short what, void *arg)
{
    struct shell *sh = arg;

    (void)fd;
    (void)what;
    if (!sh->launcher->console_pump(sh->launched))
        event_del(sh->console);
}

static void on_stop_signal(evutil_socket_t sig, short what, void *arg)
{
    struct shell *sh = arg;

    (void)what;
    if (sh->stopping && clock_mono_ms() - sh->stop_ms < SHELL_SAME_STOP_MS && sh->options.report_fd)
        return;
    if (sh->stopping) {
        log_warn("shell", "second signal, terminating the enclave now");
        sh->kill_now = true;
        return;
    }
    sh->stopping = true;
    sh->stop_ms = clock_mono_ms();
    sh->stop_signal = (int)sig;
    log_info("shell", "stopping the enclave",
             kv_uint("grace_secs", sh->manifest ? sh->manifest->runtime.stop_grace_secs : 0));
    if (sh->status)
        status_reader_send_stop(sh->status,
                                stop_grace_of_secs(sh->manifest->runtime.stop_grace_secs));
}

static void on_stats_signal(evutil_socket_t sig, short what, void *arg)
{
    struct shell *sh = arg;

    (void)sig;
    (void)what;
    for (size_t i = 0; sh->ingress && i < host_ingress_count(sh->ingress); i++) {
        struct listener_stats s = host_ingress_stats(sh->ingress, i);

        log_info("stats", "ingress", kv_uint("port", host_ingress_port(sh->ingress, i)),
                 kv_uint("open", s.open), kv_uint("accepted", s.accepted), kv_uint("shed", s.shed));
    }
    if (sh->egress) {
        struct host_egress_stats s = host_egress_stats_of(sh->egress);

        log_info("stats", "egress", kv_uint("open", s.open), kv_uint("connected", s.connected),
                 kv_uint("refused", s.refused), kv_uint("failed", s.failed),
                 kv_uint("bytes_out", s.bytes_out), kv_uint("bytes_in", s.bytes_in));
    }
}

/* ---- the start ---- */

static struct event *watch_signal(struct shell *sh, int sig, event_callback_fn callback)
{
    struct event *e = evsignal_new(sh->base, sig, callback, sh);

    if (!e || event_add(e, NULL) < 0)
        abort(); /* out of memory */
    return e;
}

static int load(struct shell *sh, struct error *err)
{
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};

    if (!sh->options.attach) {
        sh->eif_fd = open(sh->options.eif_file, O_RDONLY | O_CLOEXEC);
        if (sh->eif_fd < 0)
            return error_sys(err, errno, "opening the EIF %s", sh->options.eif_file);
    }
    return manifest_load_file(sh->options.manifest_file, 0, &sh->manifest, &problems, err);
}

static unsigned pick(unsigned option, int32_t manifest, unsigned fallback)
{
    return option ? option : manifest > 0 ? (unsigned)manifest : fallback;
}

/* Lets the services answer and signals arrive while a launcher waits for its enclave. */
static bool turn_while_starting(void *arg)
{
    struct shell *sh = arg;

    event_base_loop(sh->base, EVLOOP_NONBLOCK);
    return !sh->stopping;
}

static void watch_enclave(struct shell *sh)
{
    int console = sh->launcher->console_fd(sh->launched);

    sh->enclave_end = event_new(sh->base, sh->launcher->end_fd(sh->launched), EV_READ | EV_PERSIST,
                                on_enclave_end, sh);
    if (!sh->enclave_end)
        abort(); /* out of memory */
    event_add(sh->enclave_end, NULL);
    if (console < 0)
        return;
    sh->console = event_new(sh->base, console, EV_READ | EV_PERSIST, on_console, sh);
    if (!sh->console)
        abort(); /* out of memory */
    event_add(sh->console, NULL);
}

/* The served mounts as a launcher wants them; the caller frees them. */
static struct launch_mount *mounts_to_launch(const struct mount_places *places)
{
    struct launch_mount *mounts = xcalloc(places->count, sizeof(*mounts));

    for (size_t i = 0; i < places->count; i++)
        mounts[i] = (struct launch_mount){.name = places->items[i].mount->name,
                                          .path = places->items[i].mount->mount_path,
                                          .read_only = places->items[i].read_only,
                                          .required = places->items[i].mount->required};
    return mounts;
}

static int start_enclave(struct shell *sh, struct error *err)
{
    AUTO_FD int door = -1; /* ours only until the enclave has it: its end must show */
    AUTO_FREE struct launch_mount *mounts = mounts_to_launch(&sh->places);
    struct launch_request request = {
        .eif_path = sh->options.eif_file,
        .eif_fd = sh->eif_fd,
        .cpu_count = pick(sh->options.cpu_count, sh->manifest->defaults.cpu_count, 2),
        .memory_mb = pick(sh->options.memory_mb, sh->manifest->defaults.memory_mb, 4096),
        .debug = sh->options.debug,
        .carrier_dir = sh->dir.path,
        .cid = carrier_cid(sh->carrier),
        .mounts = mounts,
        .mount_count = sh->places.count,
        .verbosity = sh->options.verbosity,
        .log_format = sh->options.log_format,
        .keep_going = turn_while_starting,
        .arg = sh,
        .other_cid = &sh->other_cid,
    };

    if (!sh->launcher)
        return 0;
    if (sh->options.debug)
        log_warn("shell", "debug mode: the console is readable and all measurements are zero, so "
                          "attestation proves nothing");
    if (request.carrier_dir && !sh->launcher->foreign_link) {
        door = carrier_make_door(sh->carrier, err);
        if (door < 0)
            return -1;
        request.carrier_door = door;
    }
    if (sh->launcher->start(&request, &sh->launched, err) < 0)
        return -1;
    watch_enclave(sh);
    return 0;
}

static int start(struct shell *sh, struct error *err)
{
    struct status_reader_spec status = {
        .base = sh->base, .changed = on_status, .failed = on_status_failed, .arg = sh};
    struct log_reader_spec log = {.base = sh->base,
                                  .out_fd = STDOUT_FILENO,
                                  .json = sh->options.log_format == LOG_JSON,
                                  .finished = on_log_finished,
                                  .arg = sh};

    if (load(sh, err) < 0 || shell_ports_match(sh, err) < 0 ||
        mount_places_find(&sh->options.mounts, sh->manifest, &sh->places, err) < 0)
        return -1;
    if (!sh->options.attach) {
        sh->launcher = launcher_choose(sh->options.launcher, err);
        if (!sh->launcher)
            return -1;
    }
    if (shell_link_start(sh, start_enclave, err) < 0)
        return -1;
    log.carrier = status.carrier = sh->carrier;
    sh->log = log_reader_start(&log);
    if (host_ingress_start(sh->base, sh->carrier, sh->ports.items, sh->ports.count, &sh->ingress,
                           err) < 0)
        return -1;
    shell_report_start(sh);
    sh->status = status_reader_start(&status);
    return 0;
}

/* ---- the run ---- */

static bool run_over(const struct shell *sh)
{
    return is_known(sh) || sh->enclave_gone || sh->kill_now;
}

static bool run_over_or_stopping(const struct shell *sh)
{
    return run_over(sh) || sh->stopping;
}

static bool known_or_killed(const struct shell *sh)
{
    return is_known(sh) || sh->kill_now;
}

static bool log_over(const struct shell *sh)
{
    return sh->log_finished || sh->kill_now;
}

static bool enclave_over(const struct shell *sh)
{
    return sh->enclave_gone || sh->kill_now;
}

/* The enclave is gone and its runtime has not said why: what is known comes from the launcher. */
static void explain_death(struct shell *sh)
{
    struct error *why = &sh->failure, err;
    int status = -1;
    char name[16];
    bool known;

    if (sh->console && event_pending(sh->console, EV_READ, NULL))
        sh->launcher->console_pump(sh->launched); /* its last words come before ours */
    known = sh->launcher->explain && sh->launcher->explain(sh->launched, why);
    if (sh->launcher->reap(sh->launched, &status, &err) < 0)
        log_warn("shell", "cleaning up after the enclave failed", kv_str("reason", err.msg));
    if (known) {
        error_wrap(why, "enclave died");
    } else if (status != -1 && WIFSIGNALED(status)) {
        status_signal_name(WTERMSIG(status), name);
        error_set(why, ERR_INTERNAL, "enclave died: capsule-runtime was killed by signal %d (%s)",
                  WTERMSIG(status), name);
        if (WTERMSIG(status) == SIGKILL)
            error_hint(why, "the kernel does this when memory runs out: give the enclave more with "
                            "--memory-mb");
    } else if (status != -1) {
        error_set(why, ERR_INTERNAL,
                  "enclave died: capsule-runtime ended with status %d and without a final report",
                  WEXITSTATUS(status));
    } else {
        error_set(why, ERR_INTERNAL, "enclave died: it ended without a final report");
    }
}

static void follow(struct shell *sh)
{
    shell_wait(sh, run_over_or_stopping, -1);
    if (sh->stopping &&
        !shell_wait(sh, run_over,
                    (int64_t)stop_grace_of_secs(sh->manifest->runtime.stop_grace_secs) +
                        SHELL_STOP_EXTRA_MS))
        log_warn("shell", "the enclave did not stop in time, terminating it");
    /* The final line may still be in the socket of an enclave that has just ended. */
    if (sh->enclave_gone && !is_known(sh) && !shell_wait(sh, known_or_killed, 500))
        explain_death(sh);
    log_reader_finish(sh->log);
    shell_wait(sh, log_over, LOG_FINISH_MS + 1000);
}

static int report_stop(const struct shell *sh)
{
    fputs("capsule: enclave stopped\n", stderr);
    return sh->options.signal_status ? 128 + sh->stop_signal : SHELL_EXIT_STOPPED;
}

/* Returns the exit status; *err is set (kind not ERR_NONE) when it is 1. */
static int report(struct shell *sh, struct error *err)
{
    char name[16];

    if (sh->stopping)
        return report_stop(sh);
    if (sh->failure.kind != ERR_NONE) {
        *err = sh->failure;
        return SHELL_EXIT_ERROR;
    }
    switch (sh->final.kind) {
    case STATUS_EXITED:
        fprintf(stderr, "capsule: enclave exited with code %d\n", sh->final.code);
        return sh->final.code & 0xff;
    case STATUS_SIGNALED:
        status_signal_name(sh->final.signal, name);
        fprintf(stderr, "capsule: enclave app killed by signal %d (%s)%s\n", sh->final.signal, name,
                sh->final.core ? ", core dumped" : "");
        return SHELL_EXIT_SIGNALED;
    case STATUS_FATAL:
        error_set(err, ERR_INTERNAL, "%s", sh->final.error);
        error_print("capsule: enclave failed", err); /* escapes what the enclave wrote */
        return SHELL_EXIT_FATAL;
    case STATUS_RUNNING:
        break;
    }
    error_set(err, ERR_INTERNAL, "the enclave ended without a result");
    return SHELL_EXIT_ERROR;
}

/* Ends the enclave and everything of ours; -1 when the enclave could not be ended. */
static int shut_down(struct shell *sh, struct error *err)
{
    int rc = 0, wait_status;

    /* Closing these two tells the runtime that its last words were taken. */
    status_reader_stop(sh->status);
    log_reader_stop(sh->log);
    sh->status = NULL;
    sh->log = NULL;
    if (sh->ingress)
        host_ingress_drain(sh->ingress);
    if (sh->launched) {
        if (!sh->kill_now && is_known(sh))
            shell_wait(sh, enclave_over, SHELL_END_MS);
        if (sh->console && event_pending(sh->console, EV_READ, NULL))
            sh->launcher->console_pump(sh->launched);
        rc = sh->enclave_gone ? sh->launcher->reap(sh->launched, &wait_status, err)
                              : sh->launcher->terminate(sh->launched, err);
    }
    if (sh->enclave_end)
        event_free(sh->enclave_end);
    if (sh->console)
        event_free(sh->console);
    if (sh->launched)
        sh->launcher->free(sh->launched);
    host_ingress_stop(sh->ingress);
    shell_services_stop(sh);
    shell_link_close(sh);
    mount_places_free(&sh->places);
    mount_options_free(&sh->options.mounts);
    manifest_free(sh->manifest);
    free(sh->ports.items);
    fd_close(&sh->eif_fd);
    return rc;
}

static int fail(const struct error *err)
{
    error_print("capsule-shell", err);
    return err->kind == ERR_USAGE ? SHELL_EXIT_USAGE : SHELL_EXIT_ERROR;
}

static int run(struct shell *sh)
{
    struct error err = {.kind = ERR_NONE}, end;
    int status = 0;
    bool started;

    signal(SIGPIPE, SIG_IGN);
    sh->on_int = watch_signal(sh, SIGINT, on_stop_signal);
    sh->on_term = watch_signal(sh, SIGTERM, on_stop_signal);
    sh->on_usr1 = watch_signal(sh, SIGUSR1, on_stats_signal);
    started = start(sh, &err) == 0;
    if (started) {
        follow(sh);
        status = report(sh, &err);
        if (status == SHELL_EXIT_ERROR && err.kind != ERR_NONE) /* else it is the app's */
            error_print("capsule", &err);
    } else {
        /* A signal that came meanwhile has only been noted; it may be why the start failed. */
        event_base_loop(sh->base, EVLOOP_NONBLOCK);
        status = sh->stopping ? report_stop(sh) : fail(&err);
    }
    if (shut_down(sh, &end) < 0) {
        error_print("capsule-shell", &end);
        status = SHELL_EXIT_ERROR;
    }
    event_free(sh->on_int);
    event_free(sh->on_term);
    event_free(sh->on_usr1);
    event_base_free(sh->base);
    return status;
}

int main(int argc, char **argv)
{
    static struct shell sh; /* zero, and too large for comfort on a stack */
    struct rlimit files;
    struct error err;

    if (argc > 1 && strcmp(argv[1], HOSTFS_PROCESS_WORD) == 0)
        return hostfs_process(argc - 1, argv + 1);
    if (shell_options_parse(argc, argv, &sh.options, &err) < 0)
        return fail(&err);
    if (sh.options.help)
        return fputs(shell_help, stdout) < 0;
    if (sh.options.version)
        return puts("capsule-shell " CAPSULE_VERSION " (" CAPSULE_GIT_REV ")") < 0;
    log_setup(log_level_of_verbosity(sh.options.verbosity), sh.options.log_format);
    if (sh.options.report_fd)
        fcntl((int)sh.options.report_fd, F_SETFD, FD_CLOEXEC);
    if (sh.options.command)
        return shell_command(&sh.options, &err) < 0 ? fail(&err) : 0;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    sh.dir = CARRIER_DIR_NONE;
    sh.eif_fd = -1;
    sh.base = event_base_new();
    if (!sh.base) {
        error_set(&err, ERR_INTERNAL, "no event loop");
        return fail(&err);
    }
    return run(&sh);
}
