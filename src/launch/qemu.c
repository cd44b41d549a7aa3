#include "launch/qemu.h"

#include "base/clock.h"
#include "base/file.h"
#include "launch/heartbeat.h"
#include "launch/qemu_console.h"
#include "launch/qemu_host.h"
#include "launch/qemu_image.h"
#include "launch/qemu_machine.h"

#include <errno.h>
#include <poll.h>

/*
 * From QEMU's start to the heartbeat. Hardware needs a second or so; 180 s is what the platform
 * gives an enclave, and emulated machines on slow ones unpack some MiB a second.
 */
#define HEARTBEAT_SECS        180u
#define HEARTBEAT_MIB_PER_SEC 4u
#define TICK_MS               50

struct launched {
    struct qemu_host host;
    struct qemu_image image;
    struct qemu_machine machine;
    struct qemu_console console;
    struct heartbeat heartbeat;
};

/* ---- what this machine can do ---- */

static int qemu_probe(struct error *err)
{
    AUTO_QEMU_HOST struct qemu_host host = {0};

    return qemu_host_find(&host, err);
}

static int qemu_recommend(struct error *err)
{
    AUTO_QEMU_HOST struct qemu_host host = {0};
    char why[QEMU_WHY_SIZE];

    if (qemu_host_find(&host, err) < 0)
        return -1;
    if (qemu_host_has_kvm(host.qemu, why))
        return 0;
    return error_set(err, ERR_UNSUPPORTED, "it would be emulated, which is slow: %s", why);
}

static bool qemu_uses_unix_carrier(void)
{
    return !qemu_host_has_vsock();
}

static bool qemu_cid_taken(uint32_t cid)
{
    struct error err = {0};
    AUTO_FD int fd = qemu_host_open_vsock(cid, &err);

    return fd < 0 && err.sys == EADDRINUSE;
}

/* ---- starting ---- */

static void warn_mode(bool kvm, const char *why)
{
    log_warn("qemu", "NOT CONFIDENTIAL: the app runs in a virtual machine of this machine's users, "
                     "who can read and change all of it; attestations are signed by a development "
                     "root. For development only");
    if (!kvm)
        log_info("qemu", "no KVM: the processor is emulated, which is slow", kv_str("reason", why));
}

static int64_t heartbeat_ms(const struct launched *l)
{
    return heartbeat_limit_ms(HEARTBEAT_SECS +
                              (l->image.initrd_size >> 20) / HEARTBEAT_MIB_PER_SEC);
}

/* The machine ended, or hangs, before it said that it is up. */
static int fail_start(struct launched *l, int64_t limit_ms, struct error *err)
{
    bool ended = qemu_machine_ended(&l->machine);

    if (ended) {
        qemu_console_drain(&l->console);
        if (!qemu_machine_explain(&l->machine, &l->console, err))
            error_set(err, ERR_INTERNAL, "it ended before its heartbeat");
    } else if (l->console.truncated) {
        error_set(err, ERR_LIMIT, "its memory is too small to unpack the image");
        error_hint(err, "give it more with --memory-mb");
    } else {
        error_set(err, ERR_TIMEOUT, "no heartbeat within %d s", (int)(limit_ms / 1000));
        error_hint(err, "--debug-mode shows the console; " HEARTBEAT_VARIABLE
                        " sets another limit for slow machines");
    }
    qemu_console_show_kept(&l->console);
    return -1;
}

static int await_heartbeat(const struct launch_request *req, struct launched *l, struct error *err)
{
    const int64_t limit = heartbeat_ms(l), deadline = clock_mono_ms() + limit;
    bool console_open = true;

    for (;;) {
        struct pollfd fds[HEARTBEAT_FDS + 2];
        size_t n = heartbeat_poll_set(&l->heartbeat, fds);

        fds[n++] = (struct pollfd){.fd = l->machine.end_fd, .events = POLLIN};
        fds[n++] = (struct pollfd){.fd = console_open ? l->console.poll_fd : -1, .events = POLLIN};
        if (poll(fds, n, TICK_MS) < 0 && errno != EINTR)
            return error_sys(err, errno, "waiting for the heartbeat");
        console_open = console_open && qemu_console_pump(&l->console);
        if (heartbeat_serve(&l->heartbeat))
            return 0;
        if (qemu_machine_ended(&l->machine) || l->console.truncated || clock_mono_ms() >= deadline)
            return fail_start(l, limit, err);
        if (req->keep_going && !req->keep_going(req->arg))
            return error_set(err, ERR_INTERNAL, "stopped before the heartbeat");
    }
}

static int listen_for_heartbeat(const struct launch_request *req, struct launched *l,
                                struct error *err)
{
    if (l->host.device)
        return heartbeat_listen_unix(&l->heartbeat, req->carrier_dir, err);
    return heartbeat_listen_vsock(&l->heartbeat, req->cid, HEARTBEAT_LOCK_MS, HEARTBEAT_PORT_MS,
                                  req->keep_going, req->arg, err);
}

static int start(const struct launch_request *req, struct launched *l, struct error *err)
{
    const int64_t began = clock_mono_ms();
    char why[QEMU_WHY_SIZE];
    struct qemu_words words;
    bool kvm;

    if (qemu_host_find(&l->host, err) < 0)
        return -1;
    if (l->host.device && !req->carrier_dir)
        return error_set(err, ERR_INTERNAL, "no directory for the carrier's sockets");
    kvm = qemu_host_has_kvm(l->host.qemu, why);
    warn_mode(kvm, why);
    words.no_half_close = l->host.device != NULL;
    words.tsc_khz = kvm ? 0 : qemu_host_tsc_khz();
    if (qemu_image_open(req, &words, &l->image, err) < 0 || listen_for_heartbeat(req, l, err) < 0)
        return -1;
    if (qemu_machine_start(&l->machine, req, &l->host, &l->image, kvm, &l->console, err) < 0) {
        qemu_machine_kill(&l->machine);
        qemu_console_drain(&l->console);
        qemu_console_show_kept(&l->console);
        return -1;
    }
    if (await_heartbeat(req, l, err) < 0)
        return -1;
    heartbeat_close(&l->heartbeat);
    qemu_image_forget(&l->image);
    log_debug("qemu", "heartbeat", kv_int("ms", clock_mono_ms() - began));
    return 0;
}

/* ---- the launcher's functions ---- */

static int qemu_terminate(struct launched *l, struct error *err)
{
    (void)err;
    qemu_machine_kill(&l->machine);
    return 0;
}

/* Without its vsock a machine that still runs is as good as gone: it is killed too. */
static int qemu_reap(struct launched *l, int *status, struct error *err)
{
    if (status)
        *status = -1;
    return qemu_terminate(l, err);
}

static void qemu_free(struct launched *l)
{
    if (!l)
        return;
    qemu_machine_free(&l->machine);
    qemu_console_close(&l->console);
    heartbeat_close(&l->heartbeat);
    qemu_image_close(&l->image);
    qemu_host_free(&l->host);
    free(l);
}

static int qemu_start(const struct launch_request *req, struct launched **out, struct error *err)
{
    struct launched *l = xcalloc(1, sizeof(*l));

    l->image = QEMU_IMAGE_NONE;
    l->machine = QEMU_MACHINE_NONE;
    l->console = (struct qemu_console){.guest = CONSOLE_NONE, .tools = CONSOLE_NONE, .poll_fd = -1};
    l->heartbeat = HEARTBEAT_NONE;
    if (start(req, l, err) < 0) {
        qemu_free(l);
        return error_wrap(err, "starting the virtual machine");
    }
    *out = l;
    return 0;
}

static bool qemu_explain(struct launched *l, struct error *why)
{
    bool known;

    /* What ended on its own is reaped here; whatever still runs must end for its last words. */
    qemu_console_pump(&l->console);
    known = qemu_machine_explain(&l->machine, &l->console, why);
    qemu_machine_kill(&l->machine);
    qemu_console_drain(&l->console);
    qemu_console_show_kept(&l->console);
    return known;
}

static int qemu_end_fd(const struct launched *l)
{
    return l->machine.end_fd;
}

static int qemu_console_fd(const struct launched *l)
{
    return l->console.poll_fd;
}

static bool qemu_pump(struct launched *l)
{
    return qemu_console_pump(&l->console);
}

const struct launcher_ops qemu_launcher = {
    .name = "qemu",
    .summary = "a QEMU microvm on this machine; not confidential",
    .confidential = false,
    .uses_unix_carrier = qemu_uses_unix_carrier,
    .foreign_link = true,
    .cid_taken = qemu_cid_taken,
    .probe = qemu_probe,
    .recommend = qemu_recommend,
    .start = qemu_start,
    .end_fd = qemu_end_fd,
    .console_fd = qemu_console_fd,
    .console_pump = qemu_pump,
    .explain = qemu_explain,
    .reap = qemu_reap,
    .terminate = qemu_terminate,
    .free = qemu_free,
};
