#include "enclave/supervise.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "enclave/descendants.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

static const int passed_on[] = {SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGQUIT};

struct supervisor {
    struct supervisor_spec spec;
    int signal_fd;
    struct event *signals;
    struct event *kill_timer; /* the app's grace, then the descendants' */
    pid_t app;                /* 0 before the start and after the end */
    pid_t group;              /* the app's process group */
    bool stopping;
    int64_t kill_at_ms;
    bool sweeping;
    bool sweep_killed;
};

static void set_timer(struct supervisor *s, int64_t ms)
{
    struct timeval tv = clock_timeval(ms);

    event_add(s->kill_timer, &tv);
}

/* ---- reaping ---- */

static void sweep_over(struct supervisor *s)
{
    s->sweeping = false;
    event_del(s->kill_timer);
    s->spec.swept(s->spec.arg);
}

static void reap(struct supervisor *s)
{
    bool ended = false;
    int status, app_status = 0;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) != 0) {
        if (pid < 0) {
            if (errno == EINTR)
                continue;
            break; /* ECHILD: nobody is left */
        }
        if (pid != s->app)
            continue;
        s->app = 0;
        ended = true;
        app_status = status;
    }
    if (ended) {
        event_del(s->kill_timer);
        s->spec.app_ended(s->spec.arg, app_status);
    } else if (s->sweeping && pid < 0) {
        sweep_over(s);
    } else if (s->sweep_killed) {
        descendants_signal(s->spec.owns_all, s->group, SIGKILL); /* what was forked in between */
    }
}

static void on_kill_timer(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor *s = arg;

    (void)fd;
    (void)what;
    if (s->sweeping) {
        s->sweep_killed = true;
        descendants_signal(s->spec.owns_all, s->group, SIGKILL);
        return;
    }
    if (s->app > 0) {
        log_warn("app", "still running after the grace, killing it", kv_int("pid", s->app));
        kill(-s->group, SIGKILL);
        kill(s->app, SIGKILL); /* in case it has left its group */
    }
}

void supervisor_sweep(struct supervisor *s)
{
    s->sweeping = true;
    descendants_signal(s->spec.owns_all, s->group, SIGTERM);
    set_timer(s, SUPERVISE_DESCENDANTS_MS);
    /* With nobody left there will be no signal to wait for. */
    raise(SIGCHLD);
}

/* ---- signals ---- */

void supervisor_set_grace(struct supervisor *s, uint32_t grace_ms)
{
    s->spec.grace_ms = grace_ms;
}

void supervisor_stop_app_by_grace(struct supervisor *s)
{
    supervisor_stop_app(s, s->spec.grace_ms);
}

void supervisor_stop_app(struct supervisor *s, uint32_t grace_ms)
{
    int64_t kill_at = clock_mono_ms() + grace_ms;

    if (s->app <= 0) {
        if (s->group == 0)
            s->spec.cancelled(s->spec.arg);
        return;
    }
    if (s->stopping && kill_at >= s->kill_at_ms)
        return;
    if (!s->stopping) {
        log_info("app", "stopping", kv_int("pid", s->app), kv_uint("grace_ms", grace_ms));
        kill(-s->group, SIGTERM);
        kill(s->app, SIGCONT); /* a stopped process does not see TERM */
    }
    s->stopping = true;
    s->kill_at_ms = kill_at;
    set_timer(s, grace_ms);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor *s = arg;
    struct signalfd_siginfo info;
    bool children = false;

    (void)what;
    while (read((int)fd, &info, sizeof(info)) == sizeof(info)) {
        int sig = (int)info.ssi_signo;

        if (sig == SIGCHLD)
            children = true;
        else if (s->spec.only_from > 0 && info.ssi_pid != (uint32_t)s->spec.only_from)
            continue;
        else if ((sig == SIGTERM || sig == SIGINT) && s->app <= 0 && s->group > 0)
            s->spec.cancelled(s->spec.arg);
        else if (sig == SIGTERM || sig == SIGINT)
            supervisor_stop_app(s, s->spec.grace_ms);
        else if (s->app > 0)
            kill(s->app, sig);
    }
    if (children)
        reap(s);
}

void supervisor_signals(sigset_t *out)
{
    sigemptyset(out);
    sigaddset(out, SIGCHLD);
    sigaddset(out, SIGTERM);
    sigaddset(out, SIGINT);
    for (size_t i = 0; i < ARRAY_LEN(passed_on); i++)
        sigaddset(out, passed_on[i]);
}

int supervisor_new(const struct supervisor_spec *spec, struct supervisor **out, struct error *err)
{
    struct supervisor *s;
    sigset_t set;
    int fd;

    supervisor_signals(&set);
    /* Blocked is also what makes them reach a PID 1 at all, and what keeps SIGCHLD if it was
     * ignored by whoever started us. */
    signal(SIGCHLD, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return error_sys(err, errno, "blocking signals");
    fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return error_sys(err, errno, "opening a signal descriptor");
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        log_warn("runtime", "orphans of the app will not be reaped");
    s = xcalloc(1, sizeof(*s));
    s->spec = *spec;
    s->signal_fd = fd;
    s->signals = event_new(spec->base, fd, EV_READ | EV_PERSIST, on_signal, s);
    s->kill_timer = evtimer_new(spec->base, on_kill_timer, s);
    if (!s->signals || !s->kill_timer)
        abort(); /* out of memory */
    event_add(s->signals, NULL);
    *out = s;
    return 0;
}

int supervisor_start_app(struct supervisor *s, const struct app_spec *app, struct error *err)
{
    if (app_start(app, &s->app, err) < 0)
        return -1;
    s->group = s->app;
    /* The child's end may have been seen while it was started. */
    raise(SIGCHLD);
    return 0;
}

void supervisor_free(struct supervisor *s)
{
    if (!s)
        return;
    event_free(s->signals);
    event_free(s->kill_timer);
    fd_close(&s->signal_fd);
    free(s);
}
