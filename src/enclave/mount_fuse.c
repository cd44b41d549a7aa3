#include "enclave/mount_fuse.h"

#include "base/bdi.h"
#include "base/file.h"
#include "base/mem.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define DEVICE "/dev/fuse"
/*
 * Of the memory that may wait to be written. The kernel's one percent for a FUSE mount is less than
 * one message in a small enclave; it is meant for servers that any user of a machine can start.
 */
#define DIRTY_PERCENT 25
/*
 * And of that memory a mount has this for itself. The kernel divides the rest among those that
 * write, down to nothing: the next first write to a mount would wait until all before it is done.
 */
#define DIRTY_PERCENT_OWN     5
#define DIRTY_PERCENT_OWN_ALL 50 /* of all mounts together; the kernel takes less than 100 */

static int open_device(void)
{
    return open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

int mount_fuse_open(struct error *err)
{
    int fd = open_device();

    if (fd < 0 && errno == ENOENT) {
        if (mknod(DEVICE, S_IFCHR | 0600, makedev(10, 229)) < 0 || chmod(DEVICE, 0666) < 0) {
            error_sys(err, errno, "making " DEVICE);
            return error_hint(err, "in a sandbox, the machine's " DEVICE " has to be open to the "
                                   "user who runs it");
        }
        fd = open_device();
    }
    if (fd >= 0)
        return fd;
    error_sys(err, errno, "opening " DEVICE);
    return error_hint(err, "host mounts need a kernel with CONFIG_FUSE_FS");
}

int mount_fuse_attach(int fd, const char *name, const char *path, bool read_only, struct error *err)
{
    AUTO_FREE char *source = xasprintf("hostfs-%s", name);
    unsigned long flags = MS_NODEV | MS_NOSUID | MS_NOEXEC | (read_only ? MS_RDONLY : 0);
    char options[160];

    if (dir_make_all(path, 0755, err) < 0)
        return -1;
    /* The root's attributes come from the host like all others: only its type counts here. */
    snprintf(
        options, sizeof(options),
        "fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions,max_read=%u", fd,
        MOUNT_IO_MAX);
    if (mount(source, path, "fuse.hostfs", flags, options) < 0)
        return error_sys(err, errno, "mounting %s", path);
    return 0;
}

int mount_fuse_clone(int fd, struct error *err)
{
    AUTO_FD int clone = open_device();
    uint32_t of = (uint32_t)fd;
    int out;

    if (clone < 0 || ioctl(clone, FUSE_DEV_IOC_CLONE, &of) < 0)
        return error_sys(err, errno, "cloning " DEVICE);
    out = clone;
    clone = -1;
    return out;
}

int mount_fuse_refuse(int fd, uint64_t unique, int error)
{
    const struct fuse_out_header h = {.len = sizeof(h), .error = -error, .unique = unique};
    ssize_t n;

    do
        n = write(fd, &h, sizeof(h));
    while (n < 0 && errno == EINTR);
    return n < 0 && errno != ENOENT ? -1 : 0;
}

void mount_fuse_tune(const char *path, size_t mounts)
{
    unsigned int own = (unsigned int)(DIRTY_PERCENT_OWN_ALL / mounts);
    struct statx st;
    dev_t fs;

    /* DONT_SYNC: the answer is known here, and the host is not asked. */
    if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE, &st) < 0)
        return;
    fs = makedev(st.stx_dev_major, st.stx_dev_minor);
    bdi_set(fs, "read_ahead_kb", MOUNT_READ_AHEAD / 1024);
    bdi_set(fs, "max_ratio", DIRTY_PERCENT);
    bdi_set(fs, "min_ratio", own < DIRTY_PERCENT_OWN ? own : DIRTY_PERCENT_OWN);
}

int mount_fuse_detach(const char *path, struct error *err)
{
    if (umount2(path, UMOUNT_NOFOLLOW) == 0 ||
        (errno == EBUSY && umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) == 0))
        return 0;
    return error_sys(err, errno, "unmounting %s", path);
}
