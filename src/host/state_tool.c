/* Running mkfs.ext4, e2fsck and resize2fs. */
#include "base/file.h"
#include "base/proc.h"
#include "host/state_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PRINT_MAX (1 << 20) /* bytes */

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

/*
 * Where it prints to: memory that takes PRINT_MAX bytes and refuses the rest. Not a pipe, whose end
 * would kill a program that is to finish without us.
 */
static int open_print(struct error *err)
{
    int fd = memfd_create("output", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd >= 0 && ftruncate(fd, PRINT_MAX) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0)
        return fd;
    error_sys(err, errno, "making memory for a program's output");
    fd_close(&fd);
    return -1;
}

/* The program's descriptors share our file position, which so tells how much it printed. */
static int read_print(int fd, const char *name, struct buf *out, struct error *err)
{
    off_t end = lseek(fd, 0, SEEK_CUR);
    size_t len = end > (off_t)STATE_TOOL_OUTPUT_MAX ? STATE_TOOL_OUTPUT_MAX
                 : end > 0                          ? (size_t)end
                                                    : 0;
    uint8_t *to = buf_reserve(out, len);

    if (!to)
        return error_set(err, ERR_LIMIT, "no room for what %s printed", name);
    if (len > 0 && fd_pread_full(fd, to, len, end - (off_t)len, name, err) < 0)
        return -1;
    out->len += len;
    return 0;
}

static int start(struct state_dir *sd, const char *const *argv, bool finish, int print,
                 struct proc *out, struct error *err)
{
    char dir[32];

    snprintf(dir, sizeof(dir), "/proc/self/fd/%d", sd->fd);
    return proc_start(&(struct proc_spec){.argv = argv,
                                          .stdin_fd = -1,
                                          .stdout_fd = print,
                                          .stderr_fd = print,
                                          .keep_fds = &sd->lock,
                                          .keep_count = 1,
                                          .die_with_parent = !finish,
                                          .new_session = finish,
                                          .dir = dir},
                      out, err);
}

int state_tool_run(struct state_dir *sd, const char *const *argv, bool finish, struct buf *out,
                   struct error *err)
{
    AUTO_FREE char *program = find_program(argv[0], err);
    CLEANUP(proc_kill) struct proc p = PROC_NONE;
    AUTO_FREE const char **args = NULL;
    AUTO_FD int print = -1;
    int status = 0;
    size_t n = 0;

    if (!program)
        return -1;
    while (argv[n])
        n++;
    args = xcalloc(n + 1, sizeof(*args));
    args[0] = program;
    for (size_t i = 1; i < n; i++)
        args[i] = argv[i];
    print = open_print(err);
    if (print < 0 || start(sd, args, finish, print, &p, err) < 0 ||
        proc_wait(&p, -1, &status, err) < 0 || read_print(print, argv[0], out, err) < 0)
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
