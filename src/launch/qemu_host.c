#include "launch/qemu_host.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/xdg.h"
#include "launch/file_id.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#ifdef __x86_64__
#include <x86intrin.h>
#endif

#define VHOST_VSOCK     "/dev/vhost-vsock"
#define KVM_DEVICE      "/dev/kvm"
#define KVM_PROBE_MS    3000 /* a machine that works ends within 100 ms */
#define KVM_RECORD_MAX  1024
#define TSC_MEASURE_NS  20000000
#define TSC_TRIES       20
#define CPUINFO_MAX     (4u << 20)
#define FIRMWARE_SIZE   65536
#define FIRMWARE_START  0xff00
#define FIRMWARE_VECTOR 0xfff0

/* ---- programs ---- */

/* In PATH, else where tools/vhost-device-vsock puts it. */
static char *find_device(void)
{
    char *found = proc_find(QEMU_DEVICE);
    AUTO_FREE char *dir = found ? NULL : xdg_dir(XDG_CACHE, "tools/bin", "the tools", NULL);
    AUTO_FREE char *path = dir ? xasprintf("%s/" QEMU_DEVICE, dir) : NULL;

    return found || !path ? found : proc_find(path);
}

int qemu_host_find(struct qemu_host *out, struct error *err)
{
    *out = (struct qemu_host){.qemu = proc_find(QEMU_PROGRAM)};
    if (!out->qemu) {
        error_set(err, ERR_NOT_FOUND, QEMU_PROGRAM " is not installed");
        return error_hint(err, "apt-get install qemu-system-x86");
    }
    if (qemu_host_has_vsock())
        return 0;
    out->device = find_device();
    if (out->device)
        return 0;
    qemu_host_free(out);
    error_set(err, ERR_NOT_FOUND,
              "no vsock: " VHOST_VSOCK " cannot be used and " QEMU_DEVICE " is not installed");
    return error_hint(err, "modprobe vhost_vsock and give this user " VHOST_VSOCK
                           ", or: cargo install --locked " QEMU_DEVICE);
}

void qemu_host_free(struct qemu_host *h)
{
    free(h->qemu);
    free(h->device);
    *h = (struct qemu_host){0};
}

/* ---- vsock ---- */

bool qemu_host_has_vsock(void)
{
    AUTO_FD int device = open(VHOST_VSOCK, O_RDWR | O_CLOEXEC);
    AUTO_FD int sock = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

    return device >= 0 && sock >= 0;
}

int qemu_host_open_vsock(uint32_t cid, struct error *err)
{
    AUTO_FD int fd = open(VHOST_VSOCK, O_RDWR | O_CLOEXEC);
    uint64_t guest = cid;
    int out;

    if (fd < 0)
        return error_sys(err, errno, "opening " VHOST_VSOCK);
    /* QEMU does this again on the same descriptor, which is fine with the kernel. */
    if (ioctl(fd, VHOST_VSOCK_SET_GUEST_CID, &guest) < 0)
        return error_sys(err, errno, "taking CID %u", (unsigned int)cid);
    out = fd;
    fd = -1;
    return out;
}

/* ---- KVM ---- */

/*
 * Firmware whose first instructions, from the reset vector on, empty the interrupt table and
 * interrupt: a triple fault, which -no-reboot turns into a good end of QEMU.
 */
static int make_firmware(struct error *err)
{
    static const uint8_t jump[] = {0xe9, 0x0d, 0xff};                  /* jmp FIRMWARE_START */
    static const uint8_t code[] = {0xfa,                               /* cli */
                                   0x2e, 0x0f, 0x01, 0x1e, 0x40, 0xff, /* lidt cs:[0xff40]: 0 */
                                   0xcc, 0xf4};                        /* int3; hlt */
    static uint8_t image[FIRMWARE_SIZE];
    AUTO_FD int fd = memfd_create("firmware", MFD_CLOEXEC);
    int out;

    memcpy(image + FIRMWARE_START, code, sizeof(code));
    memcpy(image + FIRMWARE_VECTOR, jump, sizeof(jump));
    if (fd < 0)
        return error_sys(err, errno, "making a memory file");
    if (fd_write_all(fd, image, sizeof(image), "a memory file", err) < 0)
        return -1;
    out = fd;
    fd = -1;
    return out;
}

static int try_kvm(const char *qemu, struct error *err)
{
    AUTO_FD int firmware = make_firmware(err);
    char path[64];
    const char *const argv[] = {qemu,         "-M",          "microvm,acpi=off,accel=kvm",
                                "-cpu",       "host",        "-m",
                                "2",          "-nodefaults", "-no-user-config",
                                "-no-reboot", "-display",    "none",
                                "-bios",      path,          NULL};

    if (firmware < 0)
        return -1;
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), firmware);
    if (proc_run(argv, KVM_PROBE_MS, NULL, err) == 0)
        return 0;
    if (err->kind == ERR_TIMEOUT)
        error_set(err, ERR_UNSUPPORTED, "KVM does not run a guest's first instructions here");
    return -1;
}

/* What the result depends on: this boot of the host and this QEMU. */
static int make_key(const char *qemu, char *key, size_t size)
{
    AUTO_BUF struct buf boot = BUF(64);
    struct stat st;
    char id[FILE_ID_SIZE];

    if (stat(qemu, &st) < 0 || file_read("/proc/sys/kernel/random/boot_id", &boot, NULL) < 0)
        return -1;
    file_id(&st, id);
    return snprintf(key, size, "%.36s %s\n", buf_cstr(&boot), id) < (int)size ? 0 : -1;
}

/* A record is the key and, when KVM does not work, why not. */
static bool recall(const char *record, const char *key, bool *works, char why[QEMU_WHY_SIZE])
{
    AUTO_BUF struct buf text = BUF(KVM_RECORD_MAX);
    size_t len = strlen(key);

    if (file_read(record, &text, NULL) < 0 || strncmp(buf_cstr(&text), key, len) != 0)
        return false;
    snprintf(why, QEMU_WHY_SIZE, "%s", buf_cstr(&text) + len);
    *works = why[0] == '\0';
    return true;
}

bool qemu_host_has_kvm(const char *qemu, char why[QEMU_WHY_SIZE])
{
    AUTO_FD int device = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);
    AUTO_FREE char *dir = NULL, *record = NULL, *text = NULL;
    struct error err = {0};
    char key[256];
    bool works;

    why[0] = '\0';
    if (device < 0) {
        snprintf(why, QEMU_WHY_SIZE, "opening " KVM_DEVICE ": %s%s", strerror(errno),
                 errno == EACCES ? " (the group kvm may)" : "");
        return false;
    }
    dir = xdg_dir(XDG_CACHE, "qemu", "the cache", NULL);
    record = xasprintf("%s/kvm", dir ? dir : "/nonexistent");
    if (make_key(qemu, key, sizeof(key)) < 0)
        key[0] = '\0';
    else if (recall(record, key, &works, why))
        return works;
    works = try_kvm(qemu, &err) == 0;
    if (!works)
        snprintf(why, QEMU_WHY_SIZE, "%.*s", QEMU_WHY_SIZE - 1, err.msg);
    /* Without the record the next run tries again: nothing worth a word. */
    text = xasprintf("%s%s", key, why);
    if (key[0] && dir && dir_make_all(dir, 0700, NULL) == 0)
        (void)file_write_atomic(record, slice_str(text), 0600, NULL);
    return works;
}

/* ---- the time stamp counter ---- */

#ifdef __x86_64__

struct tick {
    uint64_t tsc;
    int64_t ns;
};

/* Both clocks at a time, as nearly as some tries allow. */
static struct tick tick_now(void)
{
    struct tick best = {0};
    uint64_t shortest = UINT64_MAX;

    for (int i = 0; i < TSC_TRIES; i++) {
        uint64_t before = __rdtsc();
        int64_t ns = clock_mono_ns();
        uint64_t took = __rdtsc() - before;

        if (took < shortest) {
            shortest = took;
            best = (struct tick){before + took / 2, ns};
        }
    }
    return best;
}

unsigned long qemu_host_tsc_khz(void)
{
    AUTO_BUF struct buf cpus = BUF(CPUINFO_MAX);
    struct timespec pause = {.tv_nsec = TSC_MEASURE_NS};
    struct tick a, b;

    if (file_read("/proc/cpuinfo", &cpus, NULL) < 0 || !strstr(buf_cstr(&cpus), " constant_tsc ") ||
        !strstr(buf_cstr(&cpus), " nonstop_tsc "))
        return 0;
    a = tick_now();
    nanosleep(&pause, NULL);
    b = tick_now();
    return (unsigned long)((double)(b.tsc - a.tsc) * 1e6 / (double)(b.ns - a.ns) + 0.5);
}

#else

unsigned long qemu_host_tsc_khz(void)
{
    return 0;
}

#endif
