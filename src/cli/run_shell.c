/* capsule-shell as a child of `capsule-cli run`. */
#include "base/file.h"
#include "base/strv.h"
#include "cli/cli.h"
#include "cli/run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

#define SHELL "capsule-shell"

/* The manifest's bytes where capsule-shell can open them: memory without a name. */
static int manifest_for_shell(const struct run *r, struct error *err)
{
    int fd = memfd_create("capsule.yaml", MFD_CLOEXEC);

    if (fd < 0)
        return error_sys(err, errno, "making a memory file for the manifest");
    if (fd_write_all(fd, r->manifest.ptr, r->manifest.len, "the copy of the manifest", err) == 0 &&
        lseek(fd, 0, SEEK_SET) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Beside ourselves, else in PATH. */
static char *shell_program(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash, *path;

    if (n > 0) {
        self[n] = '\0';
        slash = strrchr(self, '/');
        path = xasprintf("%.*s/" SHELL, (int)(slash ? slash - self : 0), self);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return xstrdup(SHELL);
}

#define ARGS_MAX (32 + 2 * PUBLISH_MAX + 2 * MANIFEST_MOUNTS_MAX)

struct args {
    const char *v[ARGS_MAX];
    size_t count;
};

static void add(struct args *a, const char *word)
{
    if (a->count + 1 < ARGS_MAX)
        a->v[a->count++] = word;
}

/* Room for the arguments that are made of numbers. */
struct texts {
    char manifest[32], report[16], cpus[16], memory[16];
    char ports[PUBLISH_MAX][PUBLISH_TEXT_SIZE];
    char **mounts; /* strv */
};

static void texts_free(struct texts **t)
{
    strv_free((*t)->mounts);
    free(*t);
}

static void fill_args(const struct run *r, struct texts *t, struct args *a)
{
    for (int i = 0; i < cli_verbosity && i < 2; i++)
        add(a, "-v");
    if (cli_log_format == LOG_JSON) {
        add(a, "--log-format");
        add(a, "json");
    }
    add(a, "--signal-status");
    add(a, "--report-fd");
    add(a, t->report);
    add(a, "--launcher");
    add(a, r->launcher);
    add(a, "--eif-file");
    add(a, r->eif);
    add(a, "--manifest-file");
    add(a, t->manifest);
    if (r->debug)
        add(a, "--debug-mode");
    if (r->cpu_count) {
        snprintf(t->cpus, sizeof(t->cpus), "%u", r->cpu_count);
        add(a, "--cpu-count");
        add(a, t->cpus);
    }
    if (r->memory_mb) {
        snprintf(t->memory, sizeof(t->memory), "%u", r->memory_mb);
        add(a, "--memory-mb");
        add(a, t->memory);
    }
    if (r->publish_all)
        add(a, "--publish-all");
    for (size_t i = 0; i < r->ports.count; i++) {
        add(a, "-p");
        add(a, publish_format(&r->ports.items[i], t->ports[i]));
    }
    run_mounts_args(&r->mounts, &t->mounts);
    for (size_t i = 0; i < strv_len(t->mounts); i++)
        add(a, t->mounts[i]);
}

/* A standard stream that was closed becomes /dev/null. */
static int stream(int fd)
{
    return fcntl(fd, F_GETFD) < 0 ? -1 : fd;
}

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static int start(const struct run *r, int manifest, int report, struct proc *out, struct error *err)
{
    AUTO_FREE char *program = shell_program();
    CLEANUP(texts_free) struct texts *t = xcalloc(1, sizeof(*t));
    /* With the locks a shell that outlives us keeps its directories. */
    int keep[2 + MANIFEST_MOUNTS_MAX] = {manifest, report};
    size_t keep_count = 2 + run_mounts_locks(&r->mounts, keep + 2);
    struct args a = {0};
    /* In a group of its own Ctrl-C reaches it once, through us. If we are killed it stops in order.
     */
    const struct proc_spec spec = {.argv = a.v,
                                   .stdin_fd = -1,
                                   .stdout_fd = stream(STDOUT_FILENO),
                                   .stderr_fd = stream(STDERR_FILENO),
                                   .keep_fds = keep,
                                   .keep_count = keep_count,
                                   .end_signal = SIGTERM,
                                   .new_group = true};

    qsort(keep, keep_count, sizeof(keep[0]), ascending);
    snprintf(t->manifest, sizeof(t->manifest), "/proc/self/fd/%d", manifest);
    snprintf(t->report, sizeof(t->report), "%d", report);
    add(&a, program);
    fill_args(r, t, &a);
    if (proc_start(&spec, out, err) == 0)
        return 0;
    return error_hint(err, SHELL " belongs beside capsule-cli or into PATH");
}

int run_shell(struct run *r, int signals, void (*up)(void *arg), void *arg, struct error *err)
{
    AUTO_FD int manifest = manifest_for_shell(r, err);
    CLEANUP(proc_kill) struct proc shell = PROC_NONE;
    int report[2], rc;

    if (manifest < 0)
        return -1;
    if (pipe2(report, O_CLOEXEC) < 0)
        return error_sys(err, errno, "making a pipe");
    rc = start(r, manifest, report[1], &shell, err);
    close(report[1]);
    if (rc == 0)
        rc = run_supervise(r, &shell, report[0], signals, up, arg, err);
    close(report[0]);
    return rc;
}
