#include "launch/nitro_cli_call.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/proc.h"
#include "launch/nitro_cli_reply.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>

#define TICK_MS  50
#define ARGS_MAX 24
#define LOG_MAX  (64u << 10)

/* ---- what it said ---- */

/* The driver's reason is in there only (spec/nitro-host.md section 7.3). */
static void log_error_logs(struct slice said)
{
    struct slice path;

    while (nitro_cli_next_log(&said, &path)) {
        AUTO_FREE char *name = slice_dup_str(path);
        AUTO_BUF struct buf text = BUF(LOG_MAX);
        struct error err = {0};

        if (file_read(name, &text, &err) < 0)
            log_warn("nitro-cli", "its error log cannot be read", kv_str("reason", err.msg));
        else
            log_warn("nitro-cli", "its error log", kv_str("path", name),
                     kv_str("text", buf_cstr(&text)));
    }
}

static const char *hint_of(int fault)
{
    switch (fault) {
    case 21:
    case 22:
    case 27:
        return "capsule-cli doctor shows CPU pool and huge pages";
    case 26:
        return "give it at least four times the image with --memory-mb";
    case 36:
        return "--debug-mode shows the console";
    default:
        return NULL;
    }
}

static int fail(const char *const *args, struct slice said, int status, struct error *err)
{
    char text[NITRO_CLI_FAULT_MAX];
    int fault = nitro_cli_parse_fault(said, text);

    if (text[0])
        error_set(err, ERR_INTERNAL, NITRO_CLI " %s: %s", args[0], text);
    else
        error_set(err, ERR_INTERNAL, NITRO_CLI " %s: it ended with status %d and said nothing",
                  args[0], WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    if (fault >= 0) {
        err->sys = fault;
        if (hint_of(fault))
            error_hint(err, "%s", hint_of(fault));
    }
    if (fault != NITRO_CLI_UNKNOWN) /* it has ended, which is all there is to know */
        log_error_logs(said);
    return -1;
}

/* ---- running it ---- */

/* Takes what is there. False: it has ended, or there is more than may be. */
static bool take(int fd, struct buf *to, bool keep_end)
{
    for (;;) {
        uint8_t chunk[4096];
        ssize_t n = read(fd, chunk, sizeof(chunk));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 && errno == EAGAIN;
        if (keep_end && to->len + (size_t)n > to->max)
            buf_consume(to, to->len + (size_t)n - to->max);
        if (buf_append(to, chunk, (size_t)n) < 0)
            return false;
    }
}

/*
 * Until the process has ended, and not until its pipes have: the process that it leaves behind for
 * the enclave may have them open still.
 */
static int attend(struct proc *p, int out_fd, int err_fd, struct buf *out, struct buf *said,
                  int timeout_ms, const struct launch_request *req, struct error *err)
{
    const int64_t deadline = clock_mono_ms() + timeout_ms;

    for (;;) {
        struct pollfd fds[3] = {{.fd = p->pidfd, .events = POLLIN},
                                {.fd = out_fd, .events = POLLIN},
                                {.fd = err_fd, .events = POLLIN}};

        if (poll(fds, 3, TICK_MS) < 0 && errno != EINTR)
            return error_sys(err, errno, "waiting for " NITRO_CLI);
        if (fds[1].revents && !take(out_fd, out, false))
            out_fd = -1;
        if (fds[2].revents && !take(err_fd, said, true))
            err_fd = -1;
        if (fds[0].revents)
            break;
        if (clock_mono_ms() >= deadline)
            return error_set(err, ERR_TIMEOUT, "no answer within %d s", timeout_ms / 1000);
        if (req && req->keep_going && !req->keep_going(req->arg))
            return error_set(err, ERR_INTERNAL, "stopped before it had ended");
    }
    if (out_fd >= 0)
        (void)take(out_fd, out, false);
    if (err_fd >= 0)
        (void)take(err_fd, said, true);
    return 0;
}

static int make_pipe(int *ours, int *theirs, struct error *err)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_sys(err, errno, "making a pipe");
    *ours = fds[0];
    *theirs = fds[1];
    return fd_set_nonblock(fds[0], err);
}

/* Our environment, with messages in the language that is parsed. The caller frees it, not the
 * words. */
static const char **make_env(void)
{
    size_t count = 0, n = 0;
    const char **env;

    while (environ[count])
        count++;
    env = xcalloc(count + 2, sizeof(*env));
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "LC_ALL=", 7) != 0)
            env[n++] = environ[i];
    env[n] = "LC_ALL=C";
    return env;
}

int nitro_cli_call(const char *const *args, int timeout_ms, const struct launch_request *req,
                   struct buf *out, struct error *err)
{
    const char *argv[ARGS_MAX] = {NITRO_CLI};
    AUTO_BUF struct buf said = BUF(NITRO_CLI_ERR_MAX);
    AUTO_FREE const char **env = make_env();
    AUTO_FD int out_fd = -1, err_fd = -1, out_theirs = -1, err_theirs = -1;
    struct proc_spec spec = {.argv = argv, .env = env, .stdin_fd = -1, .new_session = true};
    CLEANUP(proc_kill) struct proc p = PROC_NONE;
    int status = 0;

    for (size_t i = 0; args[i] && i + 2 < ARGS_MAX; i++)
        argv[i + 1] = args[i];
    if (make_pipe(&out_fd, &out_theirs, err) < 0 || make_pipe(&err_fd, &err_theirs, err) < 0)
        return -1;
    spec.stdout_fd = out_theirs;
    spec.stderr_fd = err_theirs;
    if (proc_start(&spec, &p, err) < 0)
        return -1;
    fd_close(&out_theirs);
    fd_close(&err_theirs);
    if (attend(&p, out_fd, err_fd, out, &said, timeout_ms, req, err) < 0)
        return error_wrap(err, NITRO_CLI " %s", args[0]);
    if (proc_wait(&p, -1, &status, err) < 0)
        return -1;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0
               ? 0
               : fail(args, buf_slice(&said), status, err);
}
