#include "enclave/app.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* What container engines use for an image without PATH. */
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* ---- environment ---- */

const char *env_get(char *const *env, const char *name)
{
    size_t len = strlen(name);

    for (; *env; env++)
        if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
            return *env + len + 1;
    return NULL;
}

static bool is_replaced(const char *entry, const char *const *set)
{
    for (; *set; set++) {
        size_t len = strcspn(*set, "=");

        if (strncmp(entry, *set, len) == 0 && entry[len] == '=')
            return true;
    }
    return false;
}

char **env_with(char *const *env, const char *const *set)
{
    size_t count = 0, extra = 0, n = 0;
    char **out;

    while (env[count])
        count++;
    while (set[extra])
        extra++;
    out = xcalloc(count + extra + 1, sizeof(*out));
    for (size_t i = 0; i < count; i++)
        if (!is_replaced(env[i], set))
            out[n++] = xstrdup(env[i]);
    for (size_t i = 0; i < extra; i++)
        out[n++] = xstrdup(set[i]);
    return out;
}

void env_free(char **env)
{
    for (char **e = env; e && *e; e++)
        free(*e);
    free(env);
}

char **env_with_proxy(char *const *env, uint16_t proxy_port)
{
    static const char *const none[] = {NULL};
    static const char *const names[] = {"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"};
    char text[ARRAY_LEN(names)][64];
    const char *set[ARRAY_LEN(names) + 3];
    size_t n = 0;

    if (proxy_port == 0)
        return env_with(env, none);
    for (; n < ARRAY_LEN(names); n++) {
        snprintf(text[n], sizeof(text[n]), "%s=http://127.0.0.1:%u/", names[n], proxy_port);
        set[n] = text[n];
    }
    set[n++] = "no_proxy=localhost,127.0.0.1";
    set[n++] = "NO_PROXY=localhost,127.0.0.1";
    set[n] = NULL;
    return env_with(env, set);
}

/* ---- the program ---- */

/* Every name to try, in order. Built before the fork: the child must not allocate. */
__attribute__((nonnull)) static char **candidates(const char *name, char *const *env)
{
    const char *path = env_get(env, "PATH");
    size_t count = 1;
    char **out;

    if (strchr(name, '/')) {
        out = xcalloc(2, sizeof(*out));
        out[0] = xstrdup(name);
        return out;
    }
    if (!path)
        path = DEFAULT_PATH;
    for (const char *p = path; *p; p++)
        count += *p == ':';
    out = xcalloc(count + 1, sizeof(*out));
    for (size_t n = 0; n < count; n++) {
        size_t len = strcspn(path, ":");

        /* An empty part is the working directory, as POSIX has it. */
        out[n] = xasprintf("%.*s%s%s", (int)len, path, len ? "/" : "./", name);
        path += len + (path[len] == ':');
    }
    return out;
}

enum step {
    STEP_CHDIR,
    STEP_GROUPS,
    STEP_GID,
    STEP_UID,
    STEP_STDIO,
    STEP_EXEC
};

struct failure {
    enum step step;
    int sys;
};

struct plan {
    const struct app_spec *spec;
    char **candidates;
    char **shell_argv; /* ["/bin/sh", file, args...] for scripts without "#!" */
    int report;
};

static void write_own(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return; /* best effort; the descriptor closes at exec */
}

/*
 * By system call: the library's functions want to tell all threads, of which a forked child has
 * none, and may wait for a lock that one of them held.
 */
static int set_identity(const struct user *u, struct failure *f)
{
    f->step = STEP_GROUPS;
    /* A user namespace may forbid setgroups(); then there are none to drop either. */
    if (syscall(SYS_setgroups, u->group_count, u->groups) < 0 &&
        (errno != EPERM || u->group_count > 0))
        return -1;
    f->step = STEP_GID;
    if (syscall(SYS_setresgid, u->gid, u->gid, u->gid) < 0 &&
        (getegid() != u->gid || getgid() != u->gid))
        return -1;
    f->step = STEP_UID;
    if (syscall(SYS_setresuid, u->uid, u->uid, u->uid) < 0 &&
        (geteuid() != u->uid || getuid() != u->uid))
        return -1;
    return 0;
}

/* So that programs can open /dev/stdout by name, as they can in container engines. */
static void give_to(int fd, const struct user *u)
{
    if (fchown(fd, u->uid, u->gid) < 0)
        return; /* best effort; without it only they fail, and say so */
}

static int set_stdio(const struct plan *p, struct failure *f)
{
    int null = open("/dev/null", O_RDONLY);

    f->step = STEP_STDIO;
    if (null < 0) {
        /* An image without /dev/null: a pipe whose other end is closed reads as empty, too. */
        int ends[2];

        if (pipe(ends) < 0)
            return -1;
        close(ends[1]);
        null = ends[0];
    }
    if (null != 0 && (dup2(null, 0) < 0 || close(null) < 0))
        return -1;
    if (p->spec->output_fd < 0)
        return 0;
    give_to(p->spec->output_fd, p->spec->user);
    if (dup2(p->spec->output_fd, 1) < 0 || dup2(p->spec->output_fd, 2) < 0)
        return -1;
    return 0;
}

static int run_program(const struct plan *p, struct failure *f)
{
    int best = ENOENT;

    f->step = STEP_EXEC;
    for (char **c = p->candidates; *c; c++) {
        execve(*c, p->spec->argv, p->spec->env);
        if (errno == ENOEXEC) {
            p->shell_argv[1] = *c;
            execve("/bin/sh", p->shell_argv, p->spec->env);
        }
        if (errno != ENOENT && errno != ENOTDIR && best == ENOENT)
            best = errno;
        if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
            break;
    }
    errno = best;
    return -1;
}

/*
 * All default. Asked of the kernel itself: the C library refuses to touch the two signals it keeps
 * for its own use, which a parent may have left ignored.
 */
static void reset_signals(void)
{
    const struct {
        unsigned long handler, flags, restorer, mask; /* as in the kernel's struct sigaction */
    } dfl = {0};

    for (int sig = 1; sig < NSIG; sig++)
        syscall(SYS_rt_sigaction, sig, &dfl, NULL, sizeof(dfl.mask));
}

static _Noreturn void child(const struct plan *p)
{
    struct failure f = {.step = STEP_CHDIR};
    struct rlimit files;
    sigset_t none;

    setpgid(0, 0);
    reset_signals();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    umask(022);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    write_own("/proc/self/oom_score_adj", "0");
    if (set_stdio(p, &f) == 0 && set_identity(p->spec->user, &f) == 0) {
        f.step = STEP_CHDIR;
        /* Before a directory that may be on a host mount is touched: see mount_lanes.h. */
        fd_close_from(3, &p->report, 1);
        if (!p->spec->cwd || !*p->spec->cwd || chdir(p->spec->cwd) == 0)
            run_program(p, &f);
    }
    f.sys = errno;
    if (write(p->report, &f, sizeof(f)) < 0)
        _exit(126);
    _exit(127);
}

static int describe(const struct app_spec *spec, const struct failure *f, struct error *err)
{
    const char *cwd = spec->cwd && *spec->cwd ? spec->cwd : "/";
    const char *name = spec->argv[0];

    switch (f->step) {
    case STEP_CHDIR:
        return error_sys(err, f->sys, "starting %s: working directory %s", name, cwd);
    case STEP_GROUPS:
        return error_sys(err, f->sys, "starting %s: setting its supplementary groups", name);
    case STEP_GID:
        return error_sys(err, f->sys, "starting %s: becoming group %u", name, spec->user->gid);
    case STEP_UID:
        return error_sys(err, f->sys, "starting %s: becoming user %u", name, spec->user->uid);
    case STEP_STDIO:
        return error_sys(err, f->sys, "starting %s: setting up its standard streams", name);
    case STEP_EXEC:
        break;
    }
    error_sys(err, f->sys, "starting %s in %s", name, cwd);
    if (f->sys == ENOENT && !strchr(name, '/'))
        error_hint(err, "it is not in PATH (%s)",
                   env_get(spec->env, "PATH") ? env_get(spec->env, "PATH") : DEFAULT_PATH);
    else if (f->sys == ENOENT)
        error_hint(err, "the file, or the interpreter or loader it names, is not in the image");
    else if (f->sys == EACCES)
        error_hint(err, "the file is not executable for user %u", spec->user->uid);
    return -1;
}

/* Returns the child's pid, or -1 with err. Closes the report's write end. */
static pid_t launch(const struct plan *p, int report_read, struct error *err)
{
    struct failure f;
    pid_t pid;
    ssize_t n;

    pid = fork();
    if (pid == 0)
        child(p);
    f.sys = errno;
    close(p->report);
    if (pid < 0)
        return error_sys(err, f.sys, "starting %s", p->spec->argv[0]);
    setpgid(pid, pid); /* both sides do it, so that neither has to wait for the other */
    do
        n = read(report_read, &f, sizeof(f));
    while (n < 0 && errno == EINTR);
    if (n != sizeof(f))
        return pid;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return describe(p->spec, &f, err);
}

int app_start(const struct app_spec *spec, pid_t *pid, struct error *err)
{
    struct plan p = {.spec = spec};
    size_t argc = 0;
    int report[2];
    pid_t started;

    if (!spec->argv[0])
        return error_set(err, ERR_INVALID, "starting the app: no program is named");
    if (pipe2(report, O_CLOEXEC) < 0)
        return error_sys(err, errno, "starting %s", spec->argv[0]);
    p.report = report[1];
    while (spec->argv[argc])
        argc++;
    p.candidates = candidates(spec->argv[0], spec->env);
    p.shell_argv = xcalloc(argc + 2, sizeof(*p.shell_argv));
    p.shell_argv[0] = (char *)(uintptr_t) "/bin/sh";
    for (size_t i = 1; i < argc; i++)
        p.shell_argv[i + 1] = spec->argv[i];
    started = launch(&p, report[0], err);
    close(report[0]);
    env_free(p.candidates);
    free(p.shell_argv);
    if (started < 0)
        return -1;
    *pid = started;
    return 0;
}
