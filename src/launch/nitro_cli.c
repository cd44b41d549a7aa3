#include "launch/nitro_cli.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "launch/heartbeat.h"
#include "launch/nitro_cli_call.h"
#include "launch/nitro_cli_reply.h"
#include "launch/nitro_device.h"
#include "launch/sandbox_console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>

#define RUN_MS        420000 /* it waits for the heartbeat itself: 180 s for ordinary sizes */
#define TERMINATE_MS  30000
#define DESCRIBE_MS   30000
#define NO_HEARTBEAT  36    /* E36: nor has it the port for it when another launch is under way */
#define BOOT_QUICK_MS 60000 /* an E36 that took less is not a heartbeat that did not come */

/* The enclave belongs to a process that nitro-cli leaves behind and that ends with it. */
struct launched {
    struct nitro_cli_enclave enclave;
    int end_fd; /* pidfd of that process */
    bool gone;
    struct proc viewer; /* `nitro-cli console`, in debug mode */
    struct console console;
};

/* ---- what this machine can do ---- */

static int nitro_cli_probe(struct error *err)
{
    AUTO_FREE char *program = proc_find(NITRO_CLI);
    AUTO_FD int device = -1;

    if (!program) {
        error_set(err, ERR_NOT_FOUND, NITRO_CLI " is not installed");
        return error_hint(err, "dnf install aws-nitro-enclaves-cli");
    }
    device = open(NITRO_DEVICE, O_RDWR | O_CLOEXEC);
    if (device >= 0)
        return 0;
    error_sys(err, errno, "opening " NITRO_DEVICE);
    return error_hint(err, "usermod -aG ne USER where there is one; else modprobe nitro_enclaves "
                           "on an instance with enclaves enabled");
}

static bool nitro_cli_cid_taken(uint32_t cid)
{
    static const char *const args[] = {"describe-enclaves", NULL};
    AUTO_BUF struct buf out = BUF(NITRO_CLI_OUT_MAX);
    struct error err = {0};
    bool found = false;

    if (nitro_cli_call(args, DESCRIBE_MS, NULL, &out, &err) < 0 ||
        nitro_cli_parse_has_cid(buf_slice(&out), cid, &found, &err) < 0)
        log_warn("nitro-cli", "the enclaves of this machine are not known",
                 kv_str("reason", err.msg));
    return found;
}

/* ---- starting ---- */

/*
 * Whether a CID that is taken may be behind a fault: it has no number of its own, and shows as any
 * failed ioctl (E29, E33) or as the end of the process for the enclave (E38, E39).
 */
static bool is_unclear(int fault, int64_t took_ms)
{
    return fault == 29 || fault == 33 || fault == 38 || fault == 39 ||
           (fault == NO_HEARTBEAT && took_ms < BOOT_QUICK_MS);
}

static int run_enclave(const struct launch_request *req, struct launched *l, struct error *err)
{
    AUTO_BUF struct buf out = BUF(NITRO_CLI_OUT_MAX);
    char eif[32], cpus[16], memory[16], cid[16];
    const int64_t began = clock_mono_ms();
    const char *args[] = {"run-enclave", "--cpu-count",   cpus, "--memory", memory, "--eif-path",
                          req->eif_path, "--enclave-cid", cid,  NULL,       NULL};

    /* The file that was checked, whatever has that name by now: nitro-cli is our child. */
    snprintf(eif, sizeof(eif), "/proc/%d/fd/%d", (int)getpid(), req->eif_fd);
    if (req->eif_fd >= 0)
        args[6] = eif;
    snprintf(cpus, sizeof(cpus), "%u", req->cpu_count);
    snprintf(memory, sizeof(memory), "%u", req->memory_mb);
    snprintf(cid, sizeof(cid), "%u", (unsigned int)req->cid);
    if (req->debug)
        args[9] = "--debug-mode";
    if (nitro_cli_call(args, RUN_MS, req, &out, err) < 0) {
        if (req->other_cid)
            *req->other_cid = is_unclear(err->sys, clock_mono_ms() - began);
        return -1;
    }
    return nitro_cli_parse_run(buf_slice(&out), &l->enclave, err);
}

static bool process_ended(const struct launched *l)
{
    struct pollfd p = {.fd = l->end_fd, .events = POLLIN};

    return poll(&p, 1, 0) > 0;
}

static int terminate_enclave(struct launched *l, struct error *err)
{
    const char *const args[] = {"terminate-enclave", "--enclave-id", l->enclave.id, NULL};
    AUTO_BUF struct buf out = BUF(NITRO_CLI_OUT_MAX);
    struct error why = {0};

    if (l->gone || !l->enclave.id[0])
        return 0;
    l->gone = true;
    if (process_ended(l))
        return 0;
    if (nitro_cli_call(args, TERMINATE_MS, NULL, &out, &why) == 0)
        return nitro_cli_parse_terminate(buf_slice(&out), err);
    if (why.sys == NITRO_CLI_UNKNOWN)
        return 0;
    *err = why;
    return error_hint(err, NITRO_CLI " terminate-enclave --enclave-id %s", l->enclave.id);
}

/* A console that cannot be had does not end an enclave that works. */
static void open_console(struct launched *l)
{
    const char *const argv[] = {NITRO_CLI, "console", "--enclave-id", l->enclave.id, NULL};
    struct error err = {0};
    AUTO_FD int theirs = console_open(&l->console, &err);
    const struct proc_spec spec = {.argv = argv,
                                   .stdin_fd = -1,
                                   .stdout_fd = theirs,
                                   .stderr_fd = theirs,
                                   .die_with_parent = true,
                                   .new_session = true};

    if (theirs < 0 || proc_start(&spec, &l->viewer, &err) < 0)
        log_warn("nitro-cli", "no console", kv_str("reason", err.msg));
}

static int start(const struct launch_request *req, struct launched *l, struct error *err)
{
    CLEANUP(heartbeat_close) struct heartbeat lock = HEARTBEAT_NONE;

    /* Its own listener for the heartbeat lets one start at a time pass. */
    if (heartbeat_lock_start(&lock, HEARTBEAT_LOCK_MS, req->keep_going, req->arg, err) < 0 ||
        run_enclave(req, l, err) < 0)
        return -1;
    if (l->enclave.cid != req->cid && req->other_cid)
        *req->other_cid = true;
    if (l->enclave.cid != req->cid)
        return error_set(err, ERR_INTERNAL, "CID %u was asked for and %u given",
                         (unsigned int)req->cid, (unsigned int)l->enclave.cid);
    if (!l->enclave.process)
        return error_set(err, ERR_INVALID, "what nitro-cli printed: no ProcessID");
    l->end_fd = (int)syscall(SYS_pidfd_open, l->enclave.process, 0);
    if (l->end_fd < 0 && errno == ESRCH)
        return error_set(err, ERR_INTERNAL, "the enclave ended at once");
    if (l->end_fd < 0)
        return error_sys(err, errno, "watching nitro-cli's process %d", (int)l->enclave.process);
    if (req->debug)
        open_console(l);
    log_info("nitro-cli", "enclave started", kv_str("id", l->enclave.id),
             kv_uint("cid", l->enclave.cid), kv_str("debug", req->debug ? "yes" : "no"));
    return 0;
}

/* ---- the launcher's functions ---- */

static int nitro_cli_terminate(struct launched *l, struct error *err)
{
    return terminate_enclave(l, err);
}

static int nitro_cli_reap(struct launched *l, int *status, struct error *err)
{
    if (status)
        *status = -1;
    return terminate_enclave(l, err);
}

static void nitro_cli_free(struct launched *l)
{
    struct error err = {0};

    if (!l)
        return;
    if (terminate_enclave(l, &err) < 0)
        log_error("nitro-cli", "ending the enclave failed", kv_str("reason", err.msg));
    proc_kill(&l->viewer);
    console_close(&l->console);
    fd_close(&l->end_fd);
    free(l);
}

static int nitro_cli_start(const struct launch_request *req, struct launched **out,
                           struct error *err)
{
    struct launched *l = xcalloc(1, sizeof(*l));

    l->end_fd = -1;
    l->viewer = PROC_NONE;
    l->console = CONSOLE_NONE;
    if (start(req, l, err) < 0) {
        nitro_cli_free(l);
        return error_wrap(err, "starting the Nitro enclave");
    }
    *out = l;
    return 0;
}

static int nitro_cli_end_fd(const struct launched *l)
{
    return l->end_fd;
}

static int nitro_cli_console_fd(const struct launched *l)
{
    return l->console.fd;
}

static bool nitro_cli_pump(struct launched *l)
{
    return console_pump(&l->console);
}

static bool nitro_cli_explain(struct launched *l, struct error *why)
{
    console_drain(&l->console);
    error_set(why, ERR_INTERNAL, "nitro-cli's process for it has ended, and does not say why");
    error_hint(why, "--debug-mode shows the console");
    return true;
}

const struct launcher_ops nitro_cli_launcher = {
    .name = "nitro-cli",
    .summary = "AWS Nitro Enclaves through nitro-cli",
    .confidential = true,
    .cid_taken = nitro_cli_cid_taken,
    .probe = nitro_cli_probe,
    .start = nitro_cli_start,
    .end_fd = nitro_cli_end_fd,
    .console_fd = nitro_cli_console_fd,
    .console_pump = nitro_cli_pump,
    .explain = nitro_cli_explain,
    .reap = nitro_cli_reap,
    .terminate = nitro_cli_terminate,
    .free = nitro_cli_free,
};
