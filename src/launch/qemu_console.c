#include "launch/qemu_console.h"

#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

/* What the kernel says when things end. The time in front of it is "[    1.234567] ". */
#define PANIC      "Kernel panic - not syncing: "
#define TRUNCATED  "Initramfs unpacking failed"
#define OOM_KILLED "Out of memory: Killed process "

/* As much of a line as is kept. */
static void cut(char out[QEMU_KEPT_LEN], const char *line)
{
    snprintf(out, QEMU_KEPT_LEN, "%.*s", QEMU_KEPT_LEN - 1, line);
}

static void keep(struct qemu_console *c, const char *line)
{
    cut(c->kept[c->kept_count++ % QEMU_KEPT_LINES], line);
}

/* A serial console ends its lines with CR LF, and firmware puts escape sequences in front. */
static void clean(const char *line, char out[CONSOLE_LINE_MAX + 1])
{
    size_t n = 0;

    for (; *line; line++)
        if (*line != '\r')
            out[n++] = *line;
    out[n] = '\0';
}

/* The app is root in its machine and may print such lines itself: they decide nothing but words. */
static void recognise(struct qemu_console *c, const char *line)
{
    const char *found;

    if ((found = strstr(line, PANIC)) != NULL && !c->panic[0])
        cut(c->panic, found + strlen(PANIC));
    else if (strstr(line, TRUNCATED))
        c->truncated = true;
    else if ((found = strstr(line, OOM_KILLED)) != NULL)
        log_warn("launcher",
                 "out of memory: the enclave's kernel killed a process; give it more with "
                 "--memory-mb",
                 kv_str("process", found + strlen(OOM_KILLED)));
}

static void on_guest_line(void *arg, const char *raw)
{
    struct qemu_console *c = arg;
    char line[CONSOLE_LINE_MAX + 1];
    uint64_t lost;

    clean(raw, line);
    if (!line[0])
        return;
    recognise(c, line);
    if (!c->show) {
        keep(c, line);
    } else if (log_rate_allow(&c->guest.rate, &lost)) {
        if (lost)
            log_warn("console", "too many lines; some are not shown", kv_uint("lines", lost));
        log_info("console", line);
    }
}

static void on_tools_line(void *arg, const char *line)
{
    struct qemu_console *c = arg;

    log_debug("qemu", line);
    keep(c, line);
    cut(c->tools_said, line);
}

int qemu_console_open(struct qemu_console *c, bool show, int *guest_fd, int *tools_fd,
                      struct error *err)
{
    struct epoll_event e = {.events = EPOLLIN};

    c->show = show;
    c->guest.line_done = on_guest_line;
    c->tools.line_done = on_tools_line;
    c->guest.arg = c->tools.arg = c;
    c->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (c->poll_fd < 0)
        return error_sys(err, errno, "making an epoll descriptor");
    *guest_fd = console_open(&c->guest, err);
    if (*guest_fd < 0)
        return -1;
    *tools_fd = console_open(&c->tools, err);
    if (*tools_fd < 0)
        return -1;
    if (epoll_ctl(c->poll_fd, EPOLL_CTL_ADD, c->guest.fd, &e) < 0 ||
        epoll_ctl(c->poll_fd, EPOLL_CTL_ADD, c->tools.fd, &e) < 0)
        return error_sys(err, errno, "watching the console");
    return 0;
}

bool qemu_console_pump(struct qemu_console *c)
{
    bool guest = console_pump(&c->guest), tools = console_pump(&c->tools);

    return guest || tools;
}

void qemu_console_drain(struct qemu_console *c)
{
    console_drain(&c->tools);
    console_drain(&c->guest);
}

void qemu_console_show_kept(struct qemu_console *c)
{
    unsigned int first = c->kept_count > QEMU_KEPT_LINES ? c->kept_count - QEMU_KEPT_LINES : 0;

    for (unsigned int i = first; i < c->kept_count; i++)
        log_info("console", c->kept[i % QEMU_KEPT_LINES]);
    c->kept_count = 0;
}

void qemu_console_close(struct qemu_console *c)
{
    console_close(&c->guest);
    console_close(&c->tools);
    fd_close(&c->poll_fd);
}
