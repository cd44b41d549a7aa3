#include "enclave/guard.h"

#include "base/clock.h"
#include "base/file.h"
#include "enclave/descendants.h"
#include "enclave/supervise.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* True when the runtime is among the processes that have ended. */
static bool reap(pid_t runtime, int *wait_status)
{
    bool ended = false;
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != runtime)
            continue;
        ended = true;
        *wait_status = status;
    }
    return ended;
}

static void watch(pid_t runtime, const sigset_t *set, int *wait_status)
{
    for (;;) {
        int sig = sigwaitinfo(set, NULL);

        if (sig == SIGCHLD && reap(runtime, wait_status))
            return;
        if (sig > 0 && sig != SIGCHLD)
            kill(runtime, sig);
    }
}

static bool nobody_left(void)
{
    pid_t pid;

    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        ;
    return pid < 0 && errno == ECHILD;
}

/* Again and again: what is killed may have been forking. Other signals wait for the caller. */
static void kill_the_rest(void)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    int64_t deadline = clock_mono_ms() + GUARD_KILL_MS;
    sigset_t children;

    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    while (!nobody_left() && clock_mono_ms() < deadline) {
        descendants_signal(getpid() == 1, 0, SIGKILL);
        sigtimedwait(&children, NULL, &pause);
    }
}

static enum guard_side become_runtime(pid_t guard)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != guard)
        _exit(1); /* it died before it could take us along */
    return GUARD_RUNTIME;
}

enum guard_side guard_split(const int *keep, size_t count, int *wait_status, struct error *err)
{
    pid_t guard = getpid(), runtime;
    sigset_t set;

    supervisor_signals(&set);
    signal(SIGCHLD, SIG_DFL); /* in case it was ignored by whoever started us */
    /* Blocked is also what makes the others reach a PID 1 at all. */
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return error_sys(err, errno, "blocking signals");
    /* Fails only on kernels that cannot do it; the runtime tries, too, and says so. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    runtime = fork();
    if (runtime < 0)
        return error_sys(err, errno, "starting the runtime beside its guard");
    if (runtime == 0)
        return become_runtime(guard);
    fd_close_from(3, keep, count);
    watch(runtime, &set, wait_status);
    if (WIFSIGNALED(*wait_status))
        kill_the_rest();
    return GUARD_OVER;
}
