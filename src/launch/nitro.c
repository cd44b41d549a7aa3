#include "launch/nitro.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"
#include "eif/eif.h"
#include "launch/heartbeat.h"
#include "launch/nitro_console.h"
#include "launch/nitro_device.h"
#include "launch/nitro_host.h"
#include "launch/nitro_memory.h"
#include "launch/sandbox_console.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/nitro_enclaves.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>

/* What the platform gives an enclave for each started 6 GiB of image and 100 GiB of memory. */
#define HEARTBEAT_SECS  90u
#define HEARTBEAT_IMAGE (UINT64_C(6) << 30)
#define HEARTBEAT_MIB   (100u << 10)
#define TICK_MS         50
#define ASSET_TAG       "/sys/devices/virtual/dmi/id/board_asset_tag"
#define ID_SIZE         96

#ifdef __aarch64__
#define HOST_IS_AARCH64 true
#else
#define HOST_IS_AARCH64 false
#endif

/*
 * The descriptor of the enclave polls POLLHUP once it has ended; closing it ends it. The process
 * that made it must be the one that gives it memory, so nothing here forks.
 */
struct launched {
    int enclave;
    int end_fd; /* epoll on it: stays open, for whoever watches it, when the enclave is closed */
    uint64_t slot;
    struct nitro_memory memory;
    struct heartbeat heartbeat;
    struct console console;
};

/* What a start works on and forgets afterwards. */
struct image {
    int fd;
    uint64_t size;
};

/* ---- what this machine can do ---- */

static int nitro_probe(struct error *err)
{
    struct nitro_host host;

    return nitro_host_examine(&host, NULL, NULL, err);
}

static void nitro_examine(launcher_said *said, void *arg)
{
    struct nitro_host host;
    struct error first = {0};

    (void)nitro_host_examine(&host, said, arg, &first);
}

/* ---- the image ---- */

static void log_measurements(const struct eif_measurements *m)
{
    char pcr[3][2 * EIF_PCR_LEN + 1];

    hex_encode(slice_of(m->pcr0, EIF_PCR_LEN), pcr[0]);
    hex_encode(slice_of(m->pcr1, EIF_PCR_LEN), pcr[1]);
    hex_encode(slice_of(m->pcr2, EIF_PCR_LEN), pcr[2]);
    log_info("nitro", "image", kv_str("pcr0", pcr[0]), kv_str("pcr1", pcr[1]),
             kv_str("pcr2", pcr[2]));
}

/* The hypervisor refuses a bad image without a word, so what is wrong with it is said here. */
static int check_image(const struct launch_request *req, struct image *image, struct error *err)
{
    struct eif_info info;
    struct eif_measurements m;

    if (eif_read_info(image->fd, req->eif_path, &info, NULL, err) < 0 ||
        eif_measure_sound(image->fd, req->eif_path, &m, err) < 0)
        return -1;
    if (eif_is_aarch64(&info) != HOST_IS_AARCH64)
        return error_set(err, ERR_UNSUPPORTED, "%s is for %s, and this machine is not",
                         req->eif_path, eif_is_aarch64(&info) ? "aarch64" : "x86_64");
    image->size = info.file_size;
    log_measurements(&m);
    return 0;
}

/* ---- starting ---- */

static int add_memory(struct launched *l, struct error *err)
{
    for (size_t i = 0; i < l->memory.count; i++)
        if (nitro_add_memory(l->enclave, l->memory.items[i].ptr, l->memory.items[i].size, err) < 0)
            return -1;
    return 0;
}

/* An enclave with its image in memory. Leaves cleaning up to the caller. */
static int make(struct launched *l, const struct launch_request *req, const struct image *image,
                const struct nitro_host *host, bool joined, struct error *err)
{
    uint64_t offset;

    l->enclave = nitro_create(&l->slot, err);
    if (l->enclave < 0 || nitro_image_offset(l->enclave, &offset, err) < 0 ||
        nitro_memory_map(&l->memory, (uint64_t)req->memory_mb << 20, host->node, joined, err) < 0 ||
        nitro_memory_load(&l->memory, offset, image->fd, image->size, req, err) < 0)
        return -1;
    return add_memory(l, err);
}

static int watch_end(struct launched *l, struct error *err)
{
    struct epoll_event e = {.events = 0}; /* POLLHUP comes unasked, and is all that comes */

    l->end_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->end_fd < 0 || epoll_ctl(l->end_fd, EPOLL_CTL_ADD, l->enclave, &e) < 0)
        return error_sys(err, errno, "watching the enclave");
    return 0;
}

static void unmake(struct launched *l)
{
    /* The driver lets go of the pages when the enclave is closed, and not before. */
    if (l->enclave >= 0 && close(l->enclave) < 0)
        log_error("nitro",
                  "ending the enclave failed: its CPUs and memory may be lost until this machine "
                  "is restarted",
                  kv_int("errno", errno));
    l->enclave = -1;
    nitro_memory_free(&l->memory);
}

static int add_cpus(struct launched *l, const struct launch_request *req, struct error *err)
{
    for (unsigned int i = 0; i < req->cpu_count; i++) {
        uint32_t id;

        if (nitro_add_cpu(l->enclave, &id, err) < 0)
            return error_wrap(err, "CPU %u of %u", i + 1, req->cpu_count);
        log_debug("nitro", "CPU", kv_uint("id", id));
    }
    return 0;
}

static bool ended(const struct launched *l)
{
    struct pollfd p = {.fd = l->enclave};

    return l->enclave < 0 || (poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)));
}

static int fail_early(struct launched *l, struct error *err)
{
    console_drain(&l->console);
    error_set(err, ERR_INTERNAL,
              "the enclave ended before its heartbeat: the hypervisor refused "
              "the image, or its kernel or init failed");
    return error_hint(err, "--debug-mode shows the console; capsule-cli eif verify checks the "
                           "image");
}

static int await_heartbeat(struct launched *l, const struct launch_request *req, int64_t limit,
                           struct error *err)
{
    const int64_t deadline = clock_mono_ms() + limit;

    for (;;) {
        struct pollfd fds[HEARTBEAT_FDS + 2];
        size_t n = heartbeat_poll_set(&l->heartbeat, fds), console = n + 1;

        fds[n++] = (struct pollfd){.fd = l->enclave};
        fds[n++] = (struct pollfd){.fd = l->console.fd, .events = POLLIN};
        if (poll(fds, n, TICK_MS) < 0) {
            if (errno != EINTR)
                return error_sys(err, errno, "waiting for the heartbeat");
            continue;
        }
        if (fds[console].revents)
            console_pump(&l->console);
        if (heartbeat_serve(&l->heartbeat))
            return 0;
        if (ended(l))
            return fail_early(l, err);
        if (clock_mono_ms() >= deadline) {
            error_set(err, ERR_TIMEOUT, "no heartbeat within %d s", (int)(limit / 1000));
            return error_hint(err, "--debug-mode shows the console; " HEARTBEAT_VARIABLE
                                   " sets another limit");
        }
        if (req->keep_going && !req->keep_going(req->arg))
            return error_set(err, ERR_INTERNAL, "stopped before the heartbeat");
    }
}

/* A console that cannot be had does not end an enclave that works. */
static void open_console(struct launched *l, uint32_t cid)
{
    struct error err = {0};

    l->console.fd = nitro_console_connect(cid, &err);
    if (l->console.fd < 0)
        log_warn("nitro", "no console", kv_str("reason", err.msg));
}

static void suggest_other_cid(const struct launch_request *req, bool helps)
{
    if (req->other_cid)
        *req->other_cid = helps;
}

/* What the driver says of memory and CPUs is clear; a CID that is taken has no number of its own.
 */
static bool is_clear(int sys)
{
    return (sys >= NE_ERR_VCPU_ALREADY_USED && sys < NE_ERR_INVALID_ENCLAVE_CID) || sys == EIO ||
           sys == ENOMEM || sys == ENOTTY;
}

static int boot(struct launched *l, const struct launch_request *req, struct error *err)
{
    uint64_t cid = req->cid;

    if (nitro_start_enclave(l->enclave, req->debug, &cid, err) < 0) {
        suggest_other_cid(req, !is_clear(err->sys));
        if (err->sys == EINVAL || err->sys == ETIMEDOUT)
            error_hint(err, "the hypervisor may have refused the image: capsule-cli eif verify");
        return -1;
    }
    /* The ports of this host's services follow from the CID that was asked for. */
    if (cid != req->cid) {
        suggest_other_cid(req, true);
        return error_set(err, ERR_INTERNAL, "CID %u was asked for and %llu given",
                         (unsigned int)req->cid, (unsigned long long)cid);
    }
    if (req->debug)
        open_console(l, req->cid);
    return 0;
}

static uint64_t started(uint64_t n, uint64_t of)
{
    return (n + of - 1) / of;
}

/* The first line of a file, as far as it is visible characters; "" when there is none. */
static void read_word(const char *path, char *out, size_t size)
{
    AUTO_BUF struct buf text = BUF(256);
    size_t n = 0;

    if (file_read(path, &text, NULL) == 0)
        for (size_t i = 0; i < text.len && n + 1 < size; i++)
            if (isgraph(text.ptr[i]))
                out[n++] = (char)text.ptr[i];
    out[n] = '\0';
}

/* As nitro-cli prints it (spec/nitro-host.md section 6). */
static void enclave_id(uint64_t slot, char out[ID_SIZE])
{
    char instance[64];

    read_word(ASSET_TAG, instance, sizeof(instance));
    snprintf(out, ID_SIZE, "%s-enc%llx", instance[0] ? instance : "i-0000000000000000",
             (unsigned long long)slot);
}

static int start(struct launched *l, const struct launch_request *req, struct image *image,
                 struct error *err)
{
    struct nitro_host host;
    char id[ID_SIZE];
    uint64_t secs;

    if (nitro_host_examine(&host, NULL, NULL, err) < 0 || check_image(req, image, err) < 0 ||
        nitro_host_suits(&host, req, image->size, err) < 0)
        return -1;
    if (make(l, req, image, &host, false, err) < 0) {
        if (err->sys != NE_ERR_MEM_MAX_REGIONS)
            return -1;
        log_debug("nitro", "too many regions of memory: once more with larger ones");
        unmake(l);
        *err = (struct error){0};
        if (make(l, req, image, &host, true, err) < 0)
            return -1;
    }
    if (watch_end(l, err) < 0 || add_cpus(l, req, err) < 0 ||
        heartbeat_listen_vsock(&l->heartbeat, req->cid, HEARTBEAT_LOCK_MS, HEARTBEAT_PORT_MS,
                               req->keep_going, req->arg, err) < 0)
        return -1;
    secs = HEARTBEAT_SECS *
           (started(image->size, HEARTBEAT_IMAGE) + started(req->memory_mb, HEARTBEAT_MIB));
    if (boot(l, req, err) < 0 || await_heartbeat(l, req, heartbeat_limit_ms(secs), err) < 0)
        return -1;
    heartbeat_close(&l->heartbeat);
    enclave_id(l->slot, id);
    log_info("nitro", "enclave started", kv_str("id", id), kv_uint("cid", req->cid),
             kv_uint("memory_mib", l->memory.total >> 20), kv_uint("cpus", req->cpu_count),
             kv_str("debug", req->debug ? "yes" : "no"));
    return 0;
}

/* ---- the launcher's functions ---- */

static int nitro_terminate(struct launched *l, struct error *err)
{
    (void)err;
    unmake(l);
    return 0;
}

/* There is no status and nothing to wait for: what has not ended by now is ended. */
static int nitro_reap(struct launched *l, int *status, struct error *err)
{
    if (status)
        *status = -1;
    return nitro_terminate(l, err);
}

static void nitro_free(struct launched *l)
{
    if (!l)
        return;
    unmake(l);
    fd_close(&l->end_fd);
    console_close(&l->console);
    heartbeat_close(&l->heartbeat);
    free(l);
}

static int nitro_start(const struct launch_request *req, struct launched **out, struct error *err)
{
    AUTO_FD int own = req->eif_fd < 0 ? open(req->eif_path, O_RDONLY | O_CLOEXEC) : -1;
    struct image image = {.fd = req->eif_fd < 0 ? own : req->eif_fd};
    struct launched *l;

    if (image.fd < 0)
        return error_sys(err, errno, "opening %s", req->eif_path);
    l = xcalloc(1, sizeof(*l));
    l->enclave = l->end_fd = -1;
    l->heartbeat = HEARTBEAT_NONE;
    l->console = CONSOLE_NONE;
    if (start(l, req, &image, err) < 0) {
        nitro_free(l);
        return error_wrap(err, "starting the Nitro enclave");
    }
    *out = l;
    return 0;
}

static int nitro_end_fd(const struct launched *l)
{
    return l->end_fd;
}

static int nitro_console_fd(const struct launched *l)
{
    return l->console.fd;
}

static bool nitro_pump(struct launched *l)
{
    return console_pump(&l->console);
}

static bool nitro_explain(struct launched *l, struct error *why)
{
    console_drain(&l->console);
    error_set(why, ERR_INTERNAL, "the hypervisor says that it crashed or rebooted, not why");
    error_hint(why, "--debug-mode shows the console");
    return true;
}

const struct launcher_ops nitro_launcher = {
    .name = "nitro",
    .summary = "AWS Nitro Enclaves through /dev/nitro_enclaves",
    .confidential = true,
    .probe = nitro_probe,
    .examine = nitro_examine,
    .start = nitro_start,
    .end_fd = nitro_end_fd,
    .console_fd = nitro_console_fd,
    .console_pump = nitro_pump,
    .explain = nitro_explain,
    .reap = nitro_reap,
    .terminate = nitro_terminate,
    .free = nitro_free,
};
