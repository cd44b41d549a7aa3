#include "init/image.h"

#include "base/file.h"
#include "base/mem.h"
#include "codec/image_entry.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define INITRD_FILE "/sys/firmware/initrd"

#define HEADER_LEN 110 /* of a newc entry */

#define LAYERS    "/.layers"
#define LOWER     LAYERS "/lower"
#define CHANGES   LAYERS "/changes"
#define UPPER     CHANGES "/upper"
#define WORK      CHANGES "/work"
#define LOOP_FREE "/dev/loop-control"

/* Where the image lies in INITRD_FILE. */
static struct {
    int fd;
    uint64_t offset, size;
} image = {.fd = -1};

/* ---- finding it ---- */

static uint64_t hex_field(const char *header, int index)
{
    char text[9] = {0};

    memcpy(text, header + 6 + 8 * index, 8);
    return strtoull(text, NULL, 16);
}

static uint64_t round_up4(uint64_t n)
{
    return (n + 3) & ~(uint64_t)3;
}

/*
 * One step through the archives, which this kernel unpacked a moment ago: *offset goes to what
 * comes next. False at the end, or where no archive goes on.
 */
static bool step(uint64_t *offset, bool *found)
{
    char header[HEADER_LEN + sizeof(IMAGE_ENTRY)];
    ssize_t n = pread(image.fd, header, sizeof(header), (off_t)*offset);
    uint64_t size, name_len;

    if (n >= 4 && memcmp(header, "\0\0\0\0", 4) == 0) {
        *offset += 4;
        return true;
    }
    if (n < HEADER_LEN || memcmp(header, "070701", 6) != 0)
        return false;
    size = hex_field(header, 6);
    name_len = hex_field(header, 11);
    *offset += round_up4(HEADER_LEN + name_len);
    *found = name_len == sizeof(IMAGE_ENTRY) && n == (ssize_t)sizeof(header) &&
             memcmp(header + HEADER_LEN, IMAGE_ENTRY, sizeof(IMAGE_ENTRY)) == 0;
    if (*found)
        image.size = size;
    else
        *offset += round_up4(size);
    return true;
}

static int find_image(struct error *err)
{
    bool found = false;

    if (mkdir("/sys", 0755) < 0 && errno != EEXIST)
        return error_sys(err, errno, "making the directory /sys");
    if (mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return error_sys(err, errno, "mounting sysfs on /sys");
    image.fd = open(INITRD_FILE, O_RDONLY | O_CLOEXEC);
    if (image.fd < 0) {
        error_sys(err, errno, "looking for the app root: no /rootfs, and opening " INITRD_FILE);
        return error_hint(err, "an image with --root-format erofs needs retain_initrd on the "
                               "command line and Linux 6.8");
    }
    while (!found && step(&image.offset, &found))
        ;
    if (!found)
        return error_set(err, ERR_NOT_FOUND,
                         "looking for the app root: no ramdisk has /rootfs or " IMAGE_ENTRY);
    return 0;
}

/* ---- mounting it ---- */

/* A read-only loop device over the image, which goes away with its mount. */
static int attach_loop(char name[32], struct error *err)
{
    struct loop_config config = {
        .fd = (uint32_t)image.fd,
        .block_size = 4096,
        .info = {.lo_offset = image.offset,
                 .lo_sizelimit = image.size,
                 .lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR},
    };
    AUTO_FD int control = open(LOOP_FREE, O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE), fd;

    if (number < 0)
        return error_sys(err, errno, "asking " LOOP_FREE " for a loop device");
    snprintf(name, 32, "/dev/loop%d", number);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, errno, "opening %s", name);
    if (ioctl(fd, LOOP_CONFIGURE, &config) < 0) {
        error_sys(err, errno, "attaching " INITRD_FILE " to %s", name);
        fd_close(&fd);
        return -1;
    }
    return fd;
}

static int mount_lower(struct error *err)
{
    AUTO_FD int loop = -1; /* held until the mount holds it */
    char name[32];

    loop = attach_loop(name, err);
    if (loop < 0)
        return -1;
    if (mount(name, LOWER, "erofs", MS_RDONLY, NULL) < 0)
        return error_sys(err, errno, "mounting the app root " IMAGE_ENTRY);
    return 0;
}

static int make_dirs(const char *const *dirs, size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++)
        if (mkdir(dirs[i], 0700) < 0)
            return error_sys(err, errno, "making the directory %s", dirs[i]);
    return 0;
}

/* The root of an overlay looks as its upper directory does. */
static int copy_attributes(const char *from, const char *to, struct error *err)
{
    struct timespec times[2];
    struct stat st;

    if (stat(from, &st) < 0)
        return error_sys(err, errno, "looking at the app root");
    times[0] = st.st_atim;
    times[1] = st.st_mtim;
    if (chown(to, st.st_uid, st.st_gid) < 0 || chmod(to, st.st_mode & 07777) < 0 ||
        utimensat(AT_FDCWD, to, times, 0) < 0)
        return error_sys(err, errno, "setting the attributes of the app root");
    return 0;
}

int image_mount(const char *target, struct error *err)
{
    const char *const layers[] = {LAYERS, LOWER, CHANGES}, *const changes[] = {UPPER, WORK};

    if (find_image(err) < 0 || make_dirs(layers, ARRAY_LEN(layers), err) < 0 ||
        make_dirs(&target, 1, err) < 0 || mount_lower(err) < 0)
        return -1;
    if (mount("tmpfs", CHANGES, "tmpfs", 0, "mode=0700") < 0)
        return error_sys(err, errno, "mounting tmpfs for the changes to the app root");
    if (make_dirs(changes, ARRAY_LEN(changes), err) < 0 || copy_attributes(LOWER, UPPER, err) < 0)
        return -1;
    if (mount("overlay", target, "overlay", 0,
              "lowerdir=" LOWER ",upperdir=" UPPER ",workdir=" WORK) < 0)
        return error_sys(err, errno, "mounting an overlay over the app root");
    fd_close(&image.fd);
    return 0;
}
