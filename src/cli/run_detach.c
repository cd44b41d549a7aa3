/* `capsule-cli run --detach`: the same run, in a process of its own whose output is kept. */
#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/run.h"
#include "runs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

struct detached {
    pid_t supervisor;
    int told[2]; /* a byte when the app has been started, the end when the supervisor has ended */
    int log[2];
    int log_lock;
};

static void close_pipes(struct detached *d)
{
    fd_close(&d->told[0]);
    fd_close(&d->told[1]);
    fd_close(&d->log[0]);
    fd_close(&d->log[1]);
    fd_close(&d->log_lock);
}

static void be_standard_streams(int in, int out)
{
    AUTO_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    dup2(in < 0 ? null : in, STDIN_FILENO);
    dup2(out < 0 ? null : out, STDOUT_FILENO);
    dup2(out < 0 ? null : out, STDERR_FILENO);
}

/*
 * The keeper of the log: a process that outlives the others and their signals, so that their last
 * words are kept whatever kills them. It ends when nobody has the other end of its pipe any more.
 */
static _Noreturn void keep_log(struct detached *d, const char *dir)
{
    setsid();
    for (int sig = SIGHUP; sig <= SIGTERM; sig++)
        signal(sig, SIG_IGN);
    be_standard_streams(d->log[0], -1);
    fd_close_from(3, &d->log_lock, 1);
    if (chdir("/") == 0)
        run_log_keep(dir, STDIN_FILENO);
    _exit(0);
}

/* The new supervisor. It goes on in the caller, as if in the foreground. */
static int become_supervisor(struct run *r, struct detached *d, int *told)
{
    setsid();
    be_standard_streams(-1, d->log[1]);
    *told = d->told[1];
    d->told[1] = -1;
    close_pipes(d);
    run_process_of(getpid(), &r->record.supervisor);
    if (chdir("/") < 0)
        log_warn("run", "the working directory stays in use");
    return 1;
}

static int fork_both(struct run *r, struct detached *d, int *told, struct error *err)
{
    pid_t keeper;

    fflush(NULL);
    keeper = fork();
    if (keeper < 0)
        return error_sys(err, errno, "starting the keeper of the log");
    if (keeper == 0)
        keep_log(d, r->place.dir);
    d->supervisor = fork();
    if (d->supervisor < 0)
        return error_sys(err, errno, "going to the background");
    return d->supervisor == 0 ? become_supervisor(r, d, told) : 0;
}

/* True when the app has been started, false when the supervisor has ended without. */
static bool wait_for_start(struct detached *d, int signals)
{
    struct pollfd p[] = {{.fd = d->told[0], .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    char byte;
    int sig;

    for (;;) {
        if (poll(p, ARRAY_LEN(p), -1) < 0)
            continue; /* EINTR */
        while (p[1].revents && (sig = run_signals_next(signals)) != 0)
            if (sig != SIGTSTP)
                kill(d->supervisor, sig); /* our child, not yet reaped */
        if (p[0].revents)
            return read(d->told[0], &byte, 1) == 1;
    }
}

/* What was said meanwhile belongs to whoever typed the command. */
static void show_log(const char *dir)
{
    AUTO_RUN_LOG struct run_log log = RUN_LOG_NONE;
    AUTO_FREE uint8_t *chunk = xmalloc(65536);
    struct error why = {0};
    bool grows;
    ssize_t n;

    if (run_log_open(dir, &log, &why) < 0)
        return;
    do {
        grows = run_log_grows(&log);
        while ((n = run_log_read(&log, chunk, 65536, &why)) > 0)
            if (fd_write_all(STDERR_FILENO, chunk, (size_t)n, "standard error", &why) < 0)
                return;
        if (grows)
            run_log_wait(&log, 20);
    } while (grows);
}

/* In the process that was called: tells the end of the start. Returns the exit status. */
static int conclude(struct run *r, struct detached *d, int signals)
{
    bool up = wait_for_start(d, signals);
    int wait_status;

    if (up) {
        printf("%s\n", r->record.id);
        return 0;
    }
    while (waitpid(d->supervisor, &wait_status, 0) < 0 && errno == EINTR)
        ;
    show_log(r->place.dir);
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

int run_detach(struct run *r, int signals, int *told, int *status, struct error *err)
{
    struct detached d = {.told = {-1, -1}, .log = {-1, -1}};
    int rc;

    d.log_lock = run_log_lock(r->place.dir, err);
    if (d.log_lock < 0)
        return -1;
    if (pipe2(d.told, O_CLOEXEC) < 0 || pipe2(d.log, O_CLOEXEC) < 0)
        rc = error_sys(err, errno, "making a pipe");
    else
        rc = fork_both(r, &d, told, err);
    if (rc == 1)
        return 1;
    fd_close(&d.told[1]);
    fd_close(&d.log[0]);
    fd_close(&d.log[1]);
    fd_close(&d.log_lock);
    if (rc == 0) {
        fd_close(&r->place.lock_fd); /* the supervisor has it */
        *status = conclude(r, &d, signals);
        run_place_close(&r->place);
    }
    close_pipes(&d);
    return rc;
}

void run_detached_up(void *told)
{
    int *fd = told;

    if (write(*fd, "", 1) < 0)
        log_debug("run", "nobody waits for the start any more");
    fd_close(fd);
}
