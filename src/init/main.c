/*
 * capsule-init: /init of the platform ramdisk, PID 1 for a few milliseconds. It tells the launcher
 * that the machine is up, makes the app's tree the root and becomes capsule-runtime by exec.
 *
 * Whatever fails is one sentence on the console, then a reboot, which ends the enclave: the
 * launcher sees its end at once, where an exit of PID 1 would be a panic with a page of registers
 * after the sentence and a wait of `panic=` seconds.
 *
 * Contract: spec eif.md sections 9.4 and 10, design.md section 3.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "init/heartbeat.h"
#include "init/memory.h"
#include "init/root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#define RUNTIME     "/sbin/capsule-runtime"
#define LAUNCH_FILE "/launch.json"
#define LAUNCH_FD   3

#define NSM_DEVICE     "/dev/nsm"
#define NSM_ANSWER_MAX 12288
#define NSM_IOCTL      _IOWR(0x0a, 0, struct nsm_message)
#define CBOR_DESCRIBE                                                                              \
    "\x6b"                                                                                         \
    "DescribeNSM"
#define CBOR_MAP_OF_ONE "\xa1"

/* Argument of the driver's only ioctl (spec nsm.md section 1). */
struct nsm_message {
    struct iovec request;
    struct iovec response;
};

/*
 * The kernel starts init without descriptors when the initramfs has no /dev/console. Where there is
 * none at all nobody reads our complaints, but neither heartbeat nor app needs one: /dev/null does.
 */
static void open_console(void)
{
    int fd = open("/dev/console", O_RDWR | O_NOCTTY);

    if (fd < 0)
        fd = open("/dev/null", O_RDWR);
    for (int i = 0; fd >= 0 && i < 3; i++)
        if (fd != i)
            dup2(fd, i);
    if (fd > 2)
        close(fd);
}

/*
 * The launch description lies beside the app root and goes out of reach when that becomes "/"; the
 * runtime reads it through descriptor 3. Its name goes at once, its bytes with the descriptor.
 */
static int open_launch_file(struct error *err)
{
    int fd = open(LAUNCH_FILE, O_RDONLY | O_NOFOLLOW);

    if (fd < 0) {
        error_sys(err, errno, "opening the launch description " LAUNCH_FILE);
        if (err->kind == ERR_NOT_FOUND)
            error_hint(err, "the app ramdisk of this image was not made by capsule-cli");
        return -1;
    }
    if (fd != LAUNCH_FD && (dup2(fd, LAUNCH_FD) < 0 || close(fd) < 0))
        return error_sys(err, errno, "keeping " LAUNCH_FILE " open");
    unlink(LAUNCH_FILE);
    return 0;
}

/* One DescribeNSM. */
static int describe_nsm(int fd, struct error *err)
{
    static const char request[] = CBOR_DESCRIBE, expected[] = CBOR_MAP_OF_ONE CBOR_DESCRIBE;
    static char response[NSM_ANSWER_MAX];
    struct nsm_message message = {{(void *)(uintptr_t)request, sizeof(request) - 1},
                                  {response, sizeof(response)}};

    if (ioctl(fd, NSM_IOCTL, &message) < 0)
        return error_sys(err, errno, "asking " NSM_DEVICE " to describe itself");
    if (message.response.iov_len < sizeof(expected) - 1 ||
        memcmp(response, expected, sizeof(expected) - 1) != 0)
        return error_set(err, ERR_INVALID, NSM_DEVICE " does not describe itself");
    return 0;
}

/*
 * What is found decides nothing here: there is no NSM outside an enclave, and the runtime opens it
 * again and fails where it must. It tells the reader of a console which of the two this was.
 */
static void check_nsm(void)
{
    struct error err = {0};
    int fd = open(NSM_DEVICE, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        error_sys(&err, errno, "going on without an NSM: opening " NSM_DEVICE);
    else
        describe_nsm(fd, &err);
    if (err.msg[0])
        error_print("capsule-init", &err);
    fd_close(&fd);
}

/* Returns only when something failed. */
static void boot(struct error *err)
{
    static const char *const envp[] = {NULL};
    char host_cid[16];
    const char *const argv[] = {RUNTIME,           "--config-dir", "/etc/capsule", "--launch",
                                "/proc/self/fd/3", "--host-cid",   host_cid,       NULL};
    unsigned cid;

    if (open_launch_file(err) < 0)
        return;
    if (heartbeat_send(&cid, err) < 0) {
        error_wrap(err, "sending the heartbeat");
        return;
    }
    snprintf(host_cid, sizeof(host_cid), "%u", cid);
    check_nsm();
    unlink("/init");
    if (root_enter(err) < 0 || root_mount_all(err) < 0 || memory_limit_thrashing(err) < 0)
        return;
    execve(RUNTIME, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)envp);
    error_sys(err, errno, "starting " RUNTIME);
    if (err->kind == ERR_NOT_FOUND)
        error_hint(err, "the app root of this image was not amended by capsule-cli");
}

int main(void)
{
    struct error err = {0};

    if (getpid() != 1) {
        fprintf(stderr, "capsule-init: runs only as the first process of an enclave\n");
        return 1;
    }
    umask(022);
    if (root_mount_dev(&err) == 0) {
        open_console();
        boot(&err);
    } else {
        open_console();
    }
    error_print("capsule-init", &err);
    fflush(stderr);
    tcdrain(STDERR_FILENO);
    reboot(RB_AUTOBOOT);
    return 1; /* panics the kernel: what is left when it cannot even reboot */
}
