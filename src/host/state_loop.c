/* Loop devices, through their ioctls: see Linux's include/uapi/linux/loop.h. */
#include "base/strv.h"
#include "host/state_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>

/* Others take free devices, too; somebody must be very unlucky to lose this often. */
#define ATTACH_TRIES 64

static int configure(int loop, int image)
{
    struct loop_config c = {.fd = (uint32_t)image,
                            .block_size = 512,
                            .info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO};

    if (ioctl(loop, LOOP_CONFIGURE, &c) == 0)
        return 0;
    if (errno != EINVAL)
        return -1;
    /* Some kernels refuse direct I/O instead of doing without where the file cannot have it. */
    c.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    return ioctl(loop, LOOP_CONFIGURE, &c);
}

static int no_loop(const char *what, int sys, struct error *err)
{
    error_sys(err, sys, "%s", what);
    if (sys == ENOENT || sys == ENXIO || sys == ENODEV)
        return error_hint(err, "load the kernel's loop devices with `modprobe loop`; a container "
                               "must be given them");
    return error_hint(err, "mounting an image needs root on the machine itself; an ordinary user "
                           "gets a plain directory instead");
}

int state_loop_attach(int image, const char *shown, char name[STATE_LOOP_SIZE], struct error *err)
{
    AUTO_FD int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

    if (control < 0)
        return no_loop("opening /dev/loop-control", errno, err);
    for (int i = 0; i < ATTACH_TRIES; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE), loop;

        if (number < 0)
            return no_loop("looking for a free loop device", errno, err);
        snprintf(name, STATE_LOOP_SIZE, "/dev/loop%d", number);
        loop = open(name, O_RDWR | O_CLOEXEC);
        if (loop < 0) {
            no_loop(name, errno, err);
            return error_wrap(err, "opening a loop device");
        }
        if (configure(loop, image) == 0)
            return loop;
        if (errno != EBUSY) {
            error_sys(err, errno, "attaching %s to %s", shown, name);
            close(loop);
            return -1;
        }
        close(loop);
    }
    return error_set(err, ERR_LIMIT,
                     "attaching %s: other programs took every loop device that was free", shown);
}

/* The path of the backing file as the kernel shows it; false when the device has none. */
static bool backing_of(const char *loop, char path[PATH_MAX])
{
    AUTO_FREE char *file = xasprintf("/sys/block/%s/loop/backing_file", loop);
    AUTO_FD int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, path, PATH_MAX - 1);

    if (n <= 0)
        return false;
    path[n] = '\0';
    path[strcspn(path, "\n")] = '\0';
    return true;
}

static bool is_backed_by(const char *loop, dev_t dev, ino_t ino, dev_t *number)
{
    char path[PATH_MAX], name[STATE_LOOP_SIZE + 256];
    struct loop_info64 info;
    AUTO_FD int fd = -1;
    struct stat st;

    if (!backing_of(loop, path))
        return false;
    snprintf(name, sizeof(name), "/dev/%s", loop);
    if (stat(name, &st) < 0 || !S_ISBLK(st.st_mode))
        return false;
    *number = st.st_rdev;
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0)
        return info.lo_device == dev && info.lo_inode == ino;
    /* An ordinary user may only look at the name. */
    return fd < 0 && stat(path, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

bool state_loop_find(dev_t dev, ino_t ino, char name[STATE_LOOP_SIZE], dev_t *loop)
{
    DIR *dir = opendir("/sys/block");
    bool found = false;

    if (!dir)
        return false;
    for (struct dirent *e; !found && (e = readdir(dir));) {
        if (strncmp(e->d_name, "loop", 4) != 0 || strlen(e->d_name) > STATE_LOOP_SIZE - 6)
            continue;
        found = is_backed_by(e->d_name, dev, ino, loop);
        if (found)
            snprintf(name, STATE_LOOP_SIZE, "/dev/%.20s", e->d_name);
    }
    closedir(dir);
    return found;
}

void state_loop_backing(const char *suffix, char ***paths)
{
    DIR *dir = opendir("/sys/block");
    size_t tail = strlen(suffix);
    char path[PATH_MAX];

    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir));) {
        size_t n;

        if (strncmp(e->d_name, "loop", 4) != 0 || !backing_of(e->d_name, path))
            continue;
        n = strlen(path);
        if (n <= tail || strcmp(path + n - tail, suffix) != 0)
            continue;
        path[n - tail] = '\0';
        strv_add(paths, path);
    }
    closedir(dir);
}
