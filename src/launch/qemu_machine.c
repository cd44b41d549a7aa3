#include "launch/qemu_machine.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

/*
 * The machine's credit, and so its largest packet. From 32 KiB on, Linux 6.12 makes packets of
 * several pieces, which version 0.3 of the device drops without a word.
 */
#define DEVICE_BUFFER   "28672"
#define DEVICE_SOCKET   "vhost.sock"
#define DEVICE_START_MS 10000
#define DEVICE_PAUSE_MS 2
#define ARGS_MAX        48
#define TEXT_MAX        160

/* ---- the vsock device ---- */

/* Connects to the device's control socket, once it listens. Returns the descriptor or -1. */
static int connect_device(struct qemu_machine *m, const char *path, struct error *err)
{
    const int64_t deadline = clock_mono_ms() + DEVICE_START_MS;
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct pollfd ended = {.fd = m->device.pidfd, .events = POLLIN};
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int out;

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    while (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        if (fd < 0 || (errno != ENOENT && errno != ECONNREFUSED) || clock_mono_ms() >= deadline)
            return error_sys(err, errno, "connecting to " QEMU_DEVICE);
        if (poll(&ended, 1, DEVICE_PAUSE_MS) > 0)
            return error_set(err, ERR_INTERNAL, QEMU_DEVICE " ended at once");
    }
    out = fd;
    fd = -1;
    return out;
}

/* Starts it in the carrier's directory, where v.sock is then. Returns its control connection. */
static int start_device(struct qemu_machine *m, const struct launch_request *req,
                        const char *program, int tools_fd, struct error *err)
{
    AUTO_FREE char *control = xasprintf("%s/" DEVICE_SOCKET, req->carrier_dir);
    AUTO_FREE char *link = xasprintf("%s/v.sock", req->carrier_dir);
    char cid[16];
    const char *const argv[] = {program,       "--guest-cid", cid,  "--socket",
                                control,       "--uds-path",  link, "--tx-buffer-size",
                                DEVICE_BUFFER, NULL};
    const struct proc_spec spec = {.argv = argv,
                                   .stdin_fd = -1,
                                   .stdout_fd = tools_fd,
                                   .stderr_fd = tools_fd,
                                   .die_with_parent = true,
                                   .new_session = true,
                                   .dir = req->carrier_dir};
    int fd;

    snprintf(cid, sizeof(cid), "%u", (unsigned int)req->cid);
    if (proc_start(&spec, &m->device, err) < 0)
        return -1;
    fd = connect_device(m, control, err);
    unlink(control);
    return fd;
}

/* ---- QEMU ---- */

struct args {
    const char *v[ARGS_MAX];
    size_t count;
    char text[8][TEXT_MAX]; /* of arguments that are made here */
    size_t texts;
};

static void add(struct args *a, const char *word)
{
    a->v[a->count++] = word;
}

static void add_pair(struct args *a, const char *option, const char *value)
{
    add(a, option);
    add(a, value);
}

__attribute__((format(printf, 3, 4))) static void add_text(struct args *a, const char *option,
                                                           const char *fmt, ...)
{
    char *text = a->text[a->texts++];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, TEXT_MAX, fmt, ap);
    va_end(ap);
    add_pair(a, option, text);
}

/*
 * Nothing that is not named is there: no network, no disk, no monitor, no display. The machine's
 * memory is a shared memory file because the vsock device is another process.
 */
static void make_args(struct args *a, const struct launch_request *req,
                      const struct qemu_host *host, const struct qemu_image *image, bool kvm,
                      int vsock_fd)
{
    add(a, host->qemu);
    add(a, "-nodefaults");
    add(a, "-no-user-config");
    add(a, "-no-reboot");
    add_pair(a, "-name", "capsule");
    add_pair(a, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny");
    add_pair(a, "-display", "none");
    add_pair(a, "-machine", "microvm,acpi=off,pic=on,pit=on,rtc=on,memory-backend=mem");
    /*
     * One thread for all emulated processors: with one each, QEMU 7.2 now and then runs code that
     * another processor has just patched, and the kernel dies of its own breakpoints.
     */
    add_pair(a, "-accel", kvm ? "kvm" : "tcg,thread=single");
    add_pair(a, "-cpu", kvm ? "host" : "max");
    add_text(a, "-smp", "%u", req->cpu_count);
    add_text(a, "-m", "%uM", req->memory_mb);
    add_text(a, "-object", "memory-backend-memfd,id=mem,size=%uM,share=on", req->memory_mb);
    add_pair(a, "-chardev", "stdio,id=console,signal=off");
    add_pair(a, "-serial", "chardev:console");
    add_text(a, "-kernel", "/proc/self/fd/%d", image->kernel_fd);
    add_text(a, "-initrd", "/proc/self/fd/%d", image->initrd_fd);
    add_pair(a, "-append", image->cmdline);
    if (host->device) {
        add_text(a, "-chardev", "socket,id=vsock,fd=%d", vsock_fd);
        add_pair(a, "-device", "vhost-user-vsock-device,chardev=vsock");
    } else {
        add_text(a, "-device", "vhost-vsock-device,guest-cid=%u,vhostfd=%d", (unsigned int)req->cid,
                 vsock_fd);
    }
    a->v[a->count] = NULL;
}

static int compare_fds(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static int start_qemu(struct qemu_machine *m, const struct launch_request *req,
                      const struct qemu_host *host, const struct qemu_image *image, bool kvm,
                      int vsock_fd, int guest_fd, int tools_fd, struct error *err)
{
    int keep[] = {image->kernel_fd, image->initrd_fd, vsock_fd};
    struct args args = {0};
    const struct proc_spec spec = {.argv = args.v,
                                   .stdin_fd = -1,
                                   .stdout_fd = guest_fd,
                                   .stderr_fd = tools_fd,
                                   .keep_fds = keep,
                                   .keep_count = ARRAY_LEN(keep),
                                   .die_with_parent = true,
                                   .new_session = true,
                                   .dir = req->carrier_dir ? req->carrier_dir : "/"};

    qsort(keep, ARRAY_LEN(keep), sizeof(keep[0]), compare_fds);
    make_args(&args, req, host, image, kvm, vsock_fd);
    return proc_start(&spec, &m->qemu, err);
}

/* ---- both ---- */

static int watch(struct qemu_machine *m, struct error *err)
{
    struct epoll_event e = {.events = EPOLLIN};

    m->end_fd = epoll_create1(EPOLL_CLOEXEC);
    if (m->end_fd < 0 || epoll_ctl(m->end_fd, EPOLL_CTL_ADD, m->qemu.pidfd, &e) < 0 ||
        (m->device.pid && epoll_ctl(m->end_fd, EPOLL_CTL_ADD, m->device.pidfd, &e) < 0))
        return error_sys(err, errno, "watching QEMU");
    return 0;
}

int qemu_machine_start(struct qemu_machine *m, const struct launch_request *req,
                       const struct qemu_host *host, const struct qemu_image *image, bool kvm,
                       struct qemu_console *console, struct error *err)
{
    AUTO_FD int guest = -1, tools = -1, vsock = -1;

    if (qemu_console_open(console, req->debug, &guest, &tools, err) < 0)
        return -1;
    vsock = host->device ? start_device(m, req, host->device, tools, err)
                         : qemu_host_open_vsock(req->cid, err);
    if (vsock < 0 || start_qemu(m, req, host, image, kvm, vsock, guest, tools, err) < 0)
        return -1;
    return watch(m, err);
}

static bool has_ended(const struct proc *p)
{
    struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

    return p->pid && poll(&pfd, 1, 0) > 0;
}

bool qemu_machine_ended(const struct qemu_machine *m)
{
    return has_ended(&m->qemu) || has_ended(&m->device);
}

static bool explain_status(const char *name, int status, const char *said, struct error *why)
{
    if (WIFSIGNALED(status)) {
        error_set(why, ERR_INTERNAL, "%s was killed by signal %d", name, WTERMSIG(status));
        if (WTERMSIG(status) == SIGKILL)
            error_hint(why, "this machine's kernel does so when its own memory runs out");
        return true;
    }
    if (WEXITSTATUS(status) == 0)
        return false;
    error_set(why, ERR_INTERNAL, "%s ended with status %d%s%s", name, WEXITSTATUS(status),
              said[0] ? ": " : "", said);
    return true;
}

bool qemu_machine_explain(struct qemu_machine *m, const struct qemu_console *console,
                          struct error *why)
{
    int status = 0;

    if (console->panic[0]) {
        error_set(why, ERR_INTERNAL, "its kernel panicked: %s", console->panic);
        if (console->truncated || strstr(console->panic, "memory"))
            error_hint(why, "give it more memory with --memory-mb");
        return true;
    }
    if (has_ended(&m->qemu))
        return proc_wait(&m->qemu, -1, &status, NULL) == 1 &&
               explain_status("QEMU", status, console->tools_said, why);
    if (has_ended(&m->device) && proc_wait(&m->device, -1, &status, NULL) == 1 &&
        !explain_status(QEMU_DEVICE, status, console->tools_said, why))
        error_set(why, ERR_INTERNAL, QEMU_DEVICE " ended, and vsock with it");
    return true;
}

void qemu_machine_kill(struct qemu_machine *m)
{
    proc_kill(&m->qemu);
    proc_kill(&m->device);
}

void qemu_machine_free(struct qemu_machine *m)
{
    qemu_machine_kill(m);
    fd_close(&m->end_fd);
}
