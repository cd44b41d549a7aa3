#include "launch/sandbox_console.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

int console_open(struct console *c, struct error *err)
{
    int fds[2];

    /* Only our side may be non-blocking: the flag belongs to the pipe's end, which PID 1 shares. */
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_sys(err, errno, "making the console pipe");
    c->fd = fds[0];
    if (fd_set_nonblock(c->fd, err) < 0) {
        fd_close(&c->fd);
        fd_close(&fds[1]);
    }
    return fds[1];
}

static void flush(struct console *c)
{
    uint64_t lost = 0;

    c->line[c->len] = '\0';
    if (c->len && c->line_done)
        c->line_done(c->arg, c->line);
    else if (c->len && log_rate_allow(&c->rate, &lost)) {
        if (lost)
            log_warn("console", "too many lines; some are not shown", kv_uint("lines", lost));
        log_info("console", c->line);
    }
    c->len = 0;
}

static void take(struct console *c, const char *p, size_t n)
{
    for (; n; p++, n--) {
        if (*p == '\n') {
            flush(c);
            continue;
        }
        if (c->len == CONSOLE_LINE_MAX)
            flush(c);
        c->line[c->len++] = *p ? *p : ' ';
    }
}

bool console_pump(struct console *c)
{
    char chunk[4096];

    /* A bounded piece each time: one enclave must not keep the loop for itself. */
    for (int i = 0; i < 16 && c->fd >= 0; i++) {
        ssize_t n = read(c->fd, chunk, sizeof(chunk));

        if (n > 0) {
            take(c, chunk, (size_t)n);
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else if (n < 0 && errno == EAGAIN) {
            return true;
        } else {
            flush(c);
            fd_close(&c->fd);
        }
    }
    return c->fd >= 0;
}

void console_drain(struct console *c)
{
    /* The pipe holds 64 KiB, so one call takes all of it. */
    if (c->fd >= 0)
        console_pump(c);
    flush(c);
}

void console_close(struct console *c)
{
    console_drain(c);
    fd_close(&c->fd);
}
