/* What `capsule-cli run` does while its shell runs: pass signals on, write down what comes up. */
#include "base/file.h"
#include "base/log.h"
#include "base/strv.h"
#include "base/text.h"
#include "cli/run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#define REPORT_LINE_MAX 256

/* ---- signals ---- */

static bool is_ignored(int sig)
{
    struct sigaction now;

    return sigaction(sig, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

int run_signals_open(struct error *err)
{
    sigset_t set;
    int fd;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    if (!is_ignored(SIGHUP)) /* nohup */
        sigaddset(&set, SIGHUP);
    if (!is_ignored(SIGTSTP))
        sigaddset(&set, SIGTSTP);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0) {
        error_sys(err, errno, "watching for signals");
        fd_close(&fd);
        return -1;
    }
    return fd;
}

int run_signals_next(int fd)
{
    struct signalfd_siginfo info;

    return read(fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}

/* Ctrl-Z: the shell, in a group of its own, stops and goes on with us. */
static void pause_both(const struct proc *shell)
{
    proc_signal(shell, SIGSTOP);
    raise(SIGSTOP);
    proc_signal(shell, SIGCONT);
}

static void pass_on(const struct proc *shell, int signals)
{
    int sig;

    while ((sig = run_signals_next(signals)) != 0) {
        if (sig == SIGTSTP)
            pause_both(shell);
        else if (sig == SIGUSR1)
            proc_signal(shell, sig);
        else
            /* With the group go helpers that unpack an image, as after Ctrl-C without us. */
            kill(-shell->pid, sig == SIGHUP ? SIGTERM : sig);
    }
}

/* ---- what comes up ---- */

struct watch {
    struct run *run;
    struct buf lines; /* of the report, as far as it is no whole line */
    void (*up)(void *arg);
    void *arg;
};

static void set(char **text, const char *value)
{
    free(*text);
    *text = xstrdup(value);
}

/* True when the record has changed in a way that lists should show at once. */
static bool take_line(struct watch *w, const char *key, const char *value)
{
    struct run_record *r = &w->run->record;
    uint64_t cid;

    if (strcmp(key, "launcher") == 0) {
        set(&r->launcher, value);
    } else if (strcmp(key, "cid") == 0) {
        if (parse_u64(slice_str(value), UINT32_MAX, &cid) == 0)
            r->cid = (uint32_t)cid;
        return true;
    } else if (strcmp(key, "port") == 0 && strv_len(r->ports) < RUN_PORTS_MAX) {
        strv_add(&r->ports, value);
    } else if (strcmp(key, "app") == 0 && !r->up) {
        r->up = true;
        return true;
    }
    return false;
}

/* Reads what has been reported; false when there will be no more. */
static bool read_report(struct watch *w, int fd)
{
    bool was_up = w->run->record.up, changed = false;
    uint8_t *to = buf_reserve(&w->lines, REPORT_LINE_MAX), *end;
    ssize_t n = to ? read(fd, to, REPORT_LINE_MAX) : 0;

    if (n <= 0)
        return n < 0 && errno == EINTR;
    w->lines.len += (size_t)n;
    while ((end = memchr(w->lines.ptr, '\n', w->lines.len)) != NULL) {
        char *line = (char *)w->lines.ptr, *space;

        *end = '\0';
        space = strchr(line, ' ');
        if (space) {
            *space = '\0';
            changed = take_line(w, line, space + 1) || changed;
        }
        buf_consume(&w->lines, (size_t)(end - w->lines.ptr) + 1);
    }
    if (changed)
        run_save(w->run);
    if (w->run->record.up && !was_up && w->up)
        w->up(w->arg);
    return true;
}

/* ---- to the end ---- */

int run_supervise(struct run *r, struct proc *shell, int report, int signals, void (*up)(void *arg),
                  void *arg, struct error *err)
{
    struct watch w = {.run = r, .lines = BUF(2 * REPORT_LINE_MAX), .up = up, .arg = arg};
    struct pollfd p[] = {{.fd = shell->pidfd, .events = POLLIN},
                         {.fd = signals, .events = POLLIN},
                         {.fd = report, .events = POLLIN}};
    int status, rc;

    run_process_of(shell->pid, &r->record.shell);
    run_save(r);
    for (;;) {
        if (poll(p, ARRAY_LEN(p), -1) < 0) {
            if (errno == EINTR)
                continue;
            error_sys(err, errno, "waiting for capsule-shell");
            buf_free(&w.lines);
            return -1;
        }
        if (p[1].revents)
            pass_on(shell, signals);
        /* First what it said, then its end. */
        if (p[2].revents && !read_report(&w, report))
            p[2].fd = -1;
        else if (p[0].revents && !p[2].revents)
            break;
    }
    buf_free(&w.lines);
    rc = proc_wait(shell, -1, &status, err);
    if (rc < 0)
        return -1;
    if (!WIFSIGNALED(status))
        return WEXITSTATUS(status);
    log_error("run",
              "capsule-shell was killed, so nothing serves the enclave any more; "
              "capsule-cli prune removes what it left",
              kv_int("signal", WTERMSIG(status)));
    return 128 + WTERMSIG(status);
}
