#include "base/proc.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Moves a descriptor above 2, so that dup2() onto 0, 1, 2 cannot overwrite a later source. */
static int lift(int fd)
{
    if (fd < 0)
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static _Noreturn void child(const struct proc_spec *spec, int report, pid_t parent)
{
    int std[3] = {lift(spec->stdin_fd), lift(spec->stdout_fd), lift(spec->stderr_fd)};
    sigset_t none;
    int sys;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < 3; i++)
        if (std[i] < 0 || dup2(std[i], i) < 0)
            goto fail;
    for (size_t i = 0; i < spec->keep_count; i++)
        if (fcntl(spec->keep_fds[i], F_SETFD, 0) < 0)
            goto fail;
    if (spec->dir && chdir(spec->dir) < 0)
        goto fail;
    if (spec->new_session)
        setsid();
    if (spec->new_group) {
        setpgid(0, 0);
        signal(SIGTTOU, SIG_IGN); /* stty tostop would stop it else */
    }
    if (spec->die_with_parent || spec->end_signal) {
        prctl(PR_SET_PDEATHSIG, spec->end_signal ? spec->end_signal : SIGKILL);
        if (getppid() != parent)
            _exit(127);
    }
    if (spec->env)
        execvpe(spec->argv[0], (char *const *)(uintptr_t)spec->argv,
                (char *const *)(uintptr_t)spec->env);
    else
        execvp(spec->argv[0], (char *const *)(uintptr_t)spec->argv);
fail:
    sys = errno;
    if (write(report, &sys, sizeof(sys)) < 0)
        _exit(126);
    _exit(127);
}

char *proc_find(const char *program)
{
    const char *path = getenv("PATH");
    const char *dir = path ? path : "/usr/bin:/bin", *end;

    if (strchr(program, '/'))
        return access(program, X_OK) == 0 ? xstrdup(program) : NULL;
    for (;; dir = end + 1) {
        char *file;

        end = strchrnul(dir, ':');
        file = xasprintf("%.*s/%s", (int)(end - dir), dir, program);
        if (end > dir && access(file, X_OK) == 0)
            return file;
        free(file);
        if (!*end)
            return NULL;
    }
}

int proc_start(const struct proc_spec *spec, struct proc *out, struct error *err)
{
    int report[2], sys = 0;
    pid_t parent = getpid(), pid;
    ssize_t n;

    if (pipe2(report, O_CLOEXEC) < 0)
        return error_sys(err, errno, "starting %s", spec->argv[0]);
    pid = fork();
    if (pid < 0) {
        sys = errno;
        close(report[0]);
        close(report[1]);
        return error_sys(err, sys, "starting %s", spec->argv[0]);
    }
    if (pid == 0)
        child(spec, report[1], parent);
    close(report[1]);
    /* The pipe closes without a word when exec succeeds. */
    do
        n = read(report[0], &sys, sizeof(sys));
    while (n < 0 && errno == EINTR);
    close(report[0]);
    if (n == sizeof(sys)) {
        waitpid(pid, NULL, 0);
        return error_sys(err, sys, "starting %s", spec->argv[0]);
    }
    out->pid = pid;
    out->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (out->pidfd < 0) {
        sys = errno;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        *out = PROC_NONE;
        return error_sys(err, sys, "watching %s", spec->argv[0]);
    }
    fcntl(out->pidfd, F_SETFD, FD_CLOEXEC);
    return 0;
}

int proc_wait(struct proc *p, int timeout_ms, int *status, struct error *err)
{
    int64_t deadline = clock_mono_ms() + timeout_ms;
    struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};
    int n;

    for (;;) {
        int64_t left = timeout_ms < 0 ? -1 : deadline - clock_mono_ms();

        n = poll(&pfd, 1, left < 0 && timeout_ms >= 0 ? 0 : (int)left);
        if (n >= 0)
            break;
        if (errno != EINTR)
            return error_sys(err, errno, "waiting for process %d", (int)p->pid);
    }
    if (n == 0)
        return 0;
    while (waitpid(p->pid, status, 0) < 0)
        if (errno != EINTR)
            return error_sys(err, errno, "reaping process %d", (int)p->pid);
    fd_close(&p->pidfd);
    p->pid = 0;
    return 1;
}

void proc_signal(const struct proc *p, int sig)
{
    if (p->pid > 0)
        syscall(SYS_pidfd_send_signal, p->pidfd, sig, NULL, 0);
}

void proc_reset_signals(void)
{
    sigset_t none;

    for (int sig = 1; sig < NSIG; sig++)
        signal(sig, SIG_DFL); /* SIGKILL, SIGSTOP and libc's own refuse; they are default anyway */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void proc_kill(struct proc *p)
{
    if (p->pid <= 0)
        return;
    proc_signal(p, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    fd_close(&p->pidfd);
    p->pid = 0;
}

/* The last line a failing program wrote, which is nearly always the reason. */
static const char *last_line(struct buf *text)
{
    char *start, *s;

    while (text->len && (text->ptr[text->len - 1] == '\n' || text->ptr[text->len - 1] == ' '))
        text->len--;
    s = (char *)(uintptr_t)buf_cstr(text);
    start = strrchr(s, '\n');
    return start ? start + 1 : s;
}

/* Reads both pipes until both end or time is up. Returns 0, or -1 at the time-out or on error. */
static int drain(int fds[2], struct buf *bufs[2], int64_t deadline, struct error *err)
{
    uint8_t chunk[16384];

    while (fds[0] >= 0 || fds[1] >= 0) {
        struct pollfd p[2] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};
        int64_t left = deadline - clock_mono_ms();
        int n = poll(p, 2, left < 0 ? 0 : (int)left);

        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            return error_set(err, ERR_TIMEOUT, "took too long");
        for (int i = 0; i < 2; i++) {
            if (fds[i] < 0 || !p[i].revents)
                continue;
            ssize_t got = read(fds[i], chunk, sizeof(chunk));
            if (got <= 0) {
                if (got < 0 && errno == EINTR)
                    continue;
                fd_close(&fds[i]);
            } else if (bufs[i] && buf_append(bufs[i], chunk, (size_t)got) < 0 && i == 0) {
                return error_set(err, ERR_LIMIT, "printed more than %zu bytes", bufs[i]->max);
            }
        }
    }
    return 0;
}

static int run(const char *const *argv, int in, int timeout_ms, struct buf *out, struct error *err)
{
    AUTO_BUF struct buf errors = BUF(65536);
    struct buf *bufs[2] = {out, &errors};
    CLEANUP(proc_kill) struct proc p = PROC_NONE;
    int64_t deadline = clock_mono_ms() + timeout_ms;
    int o[2], e[2], rc, status = 0, fds[2];
    struct proc_spec spec = {.argv = argv, .stdin_fd = in, .die_with_parent = true};

    if (pipe2(o, O_CLOEXEC) < 0)
        return error_sys(err, errno, "running %s", argv[0]);
    if (pipe2(e, O_CLOEXEC) < 0) {
        close(o[0]);
        close(o[1]);
        return error_sys(err, errno, "running %s", argv[0]);
    }
    spec.stdout_fd = o[1];
    spec.stderr_fd = e[1];
    rc = proc_start(&spec, &p, err);
    close(o[1]);
    close(e[1]);
    fds[0] = o[0];
    fds[1] = e[0];
    if (rc == 0)
        rc = drain(fds, bufs, deadline, err);
    fd_close(&fds[0]);
    fd_close(&fds[1]);
    if (rc < 0)
        return error_wrap(err, "running %s", argv[0]);
    rc = proc_wait(&p, (int)(deadline - clock_mono_ms()), &status, err);
    if (rc <= 0)
        return rc < 0 ? -1 : error_set(err, ERR_TIMEOUT, "%s: took too long", argv[0]);
    if (WIFSIGNALED(status))
        return error_set(err, ERR_IO, "%s: killed by signal %d", argv[0], WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        return error_set(err, ERR_IO, "%s: %s (exit status %d)", argv[0], last_line(&errors),
                         WEXITSTATUS(status));
    return 0;
}

int proc_run(const char *const *argv, int timeout_ms, struct buf *out, struct error *err)
{
    return run(argv, -1, timeout_ms, out, err);
}

int proc_run_input(const char *const *argv, struct slice input, int timeout_ms, struct buf *out,
                   struct error *err)
{
    int in[2], rc;

    if (input.len > PROC_INPUT_MAX)
        return error_set(err, ERR_LIMIT, "running %s: an input of more than %d bytes", argv[0],
                         PROC_INPUT_MAX);
    if (pipe2(in, O_CLOEXEC) < 0)
        return error_sys(err, errno, "running %s", argv[0]);
    /* A pipe takes this much without a reader. */
    rc = fd_write_all(in[1], input.ptr, input.len, argv[0], err);
    close(in[1]);
    if (rc == 0)
        rc = run(argv, in[0], timeout_ms, out, err);
    close(in[0]);
    return rc;
}
