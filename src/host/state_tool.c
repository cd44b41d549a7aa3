/* Running mkfs.ext4, e2fsck and resize2fs. */
#include "base/file.h"
#include "base/proc.h"
#include "host/state_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>

/* They lie where an ordinary PATH does not reach. */
static char *find_program(const char *name, struct error *err)
{
    static const char *const dirs[] = {"/usr/sbin", "/sbin"};
    char *path;

    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        path = xasprintf("%s/%s", dirs[i], name);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    path = proc_find(name);
    if (!path) {
        error_set(err, ERR_NOT_FOUND, "%s: no such program on this machine", name);
        error_hint(err, "it is in the package e2fsprogs: apt-get install e2fsprogs");
    }
    return path;
}

static void keep_tail(struct buf *out, const uint8_t *ptr, size_t len)
{
    if (buf_append(out, ptr, len) == 0)
        return;
    buf_consume(out, out->len / 2);
    if (buf_append(out, ptr, len) < 0)
        buf_clear(out);
}

static int read_output(int fd, struct buf *out, const char *name, struct error *err)
{
    uint8_t chunk[4096];
    ssize_t n;

    while ((n = read(fd, chunk, sizeof(chunk))) != 0) {
        if (n < 0 && errno != EINTR)
            return error_sys(err, errno, "reading what %s prints", name);
        if (n > 0)
            keep_tail(out, chunk, (size_t)n);
    }
    return 0;
}

int state_tool_run(struct state_dir *sd, const char *const *argv, bool finish, struct buf *out,
                   struct error *err)
{
    AUTO_FREE char *program = find_program(argv[0], err);
    CLEANUP(proc_kill) struct proc p = PROC_NONE;
    AUTO_FREE const char **args = NULL;
    AUTO_FD int read_end = -1;
    char dir[32];
    size_t n = 0;
    int ends[2], status = 0;

    if (!program)
        return -1;
    while (argv[n])
        n++;
    args = xcalloc(n + 1, sizeof(*args));
    args[0] = program;
    for (size_t i = 1; i < n; i++)
        args[i] = argv[i];
    snprintf(dir, sizeof(dir), "/proc/self/fd/%d", sd->fd);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_sys(err, errno, "running %s", argv[0]);
    read_end = ends[0];
    if (proc_start(&(struct proc_spec){.argv = args,
                                       .stdin_fd = -1,
                                       .stdout_fd = ends[1],
                                       .stderr_fd = ends[1],
                                       .keep_fds = &sd->lock,
                                       .keep_count = 1,
                                       .die_with_parent = !finish,
                                       .new_session = finish,
                                       .dir = dir},
                   &p, err) < 0) {
        close(ends[1]);
        return -1;
    }
    close(ends[1]);
    if (read_output(read_end, out, argv[0], err) < 0 || proc_wait(&p, -1, &status, err) < 0)
        return -1;
    if (!WIFEXITED(status))
        return error_set(err, ERR_IO, "%s: killed by signal %d", argv[0], WTERMSIG(status));
    return WEXITSTATUS(status);
}

const char *state_tool_said(const struct buf *out, char text[STATE_TOOL_SAID_SIZE])
{
    const size_t room = STATE_TOOL_SAID_SIZE - 1;
    size_t from = out->len > room ? out->len - room : 0, n = 0;
    bool gap = false;

    for (size_t i = from; i < out->len; i++) {
        uint8_t c = out->ptr[i];

        if (c == '\n' || c == ' ' || c == '\t') {
            gap = n > 0;
            continue;
        }
        if (gap && n + 1 < room)
            text[n++] = ' ';
        gap = false;
        if (n < room)
            text[n++] = (char)(c < ' ' || c == 0x7f ? '?' : c); /* mkfs draws with backspaces */
    }
    text[n] = '\0';
    return n ? text : "it printed nothing";
}
