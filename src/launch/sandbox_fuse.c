#include "launch/sandbox_fuse.h"

#include "base/bdi.h"
#include "base/file.h"
#include "base/mem.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define DEVICE "/dev/fuse"

static int open_device(void)
{
    return open(DEVICE, O_RDWR | O_CLOEXEC);
}

int fuse_can_open(struct error *err)
{
    AUTO_FD int fd = open_device();
    int why = errno;

    if (fd >= 0)
        return 0;
    error_sys(err, why, "opening this machine's " DEVICE ", which host mounts in the sandbox need");
    if (why == EACCES || why == EPERM)
        return error_hint(err, "sudo chmod 0666 " DEVICE " opens it to every user until the next "
                               "boot; root needs nothing");
    return error_hint(err, "sudo modprobe fuse; a container needs the device of its host "
                           "(docker run --device " DEVICE ")");
}

/* Without FUSE: 0 when the app can do without its mounts, or the one that it cannot. */
static int do_without(const struct launch_request *req, struct error *err)
{
    for (size_t i = 0; i < req->mount_count; i++)
        if (req->mounts[i].required)
            return error_wrap(err, "host mount %s, which the manifest requires",
                              req->mounts[i].name);
    log_warn("sandbox", "no host mounts", kv_str("reason", err->msg), kv_str("hint", err->hint));
    return 0;
}

static char *option_of(const char *name, int first_fd, size_t lanes)
{
    char *text = xasprintf("%s=%d", name, first_fd);

    for (size_t i = 1; i < lanes; i++) {
        char *longer = xasprintf("%s,%d", text, first_fd + (int)i);

        free(text);
        text = longer;
    }
    return text;
}

int fuse_plan_make(const struct launch_request *req, int first_fd, struct fuse_plan *out,
                   struct error *err)
{
    *out = (struct fuse_plan){.lanes = SANDBOX_LANES_MAX};
    if (req->mount_count == 0)
        return 0;
    if (fuse_can_open(err) < 0)
        return do_without(req, err);
    if (req->mount_count > SANDBOX_FUSE_MAX)
        return error_set(err, ERR_LIMIT, "%zu host mounts: the sandbox can have %d",
                         req->mount_count, SANDBOX_FUSE_MAX);
    if (req->mount_count * out->lanes > SANDBOX_FUSE_MAX)
        out->lanes = 1;
    out->places = xcalloc(req->mount_count, sizeof(*out->places));
    for (size_t i = 0; i < req->mount_count; i++) {
        const struct launch_mount *m = &req->mounts[i];
        struct fuse_place *place = &out->places[out->count++];

        place->path = m->path + strspn(m->path, "/");
        place->read_only = m->read_only;
        place->source = xasprintf("hostfs-%s", m->name);
        place->option = option_of(m->name, first_fd + (int)(i * out->lanes), out->lanes);
    }
    return 0;
}

void fuse_plan_free(struct fuse_plan *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->places[i].source);
        free(p->places[i].option);
    }
    free(p->places);
    *p = (struct fuse_plan){0};
}

void fuse_read_ahead(dev_t fs)
{
    if (fs != 0)
        bdi_set(fs, "read_ahead_kb", MOUNT_READ_AHEAD / 1024);
}

int fuse_plan_open(const struct fuse_plan *p, struct error *err)
{
    for (size_t i = 0; i < p->count; i++)
        for (size_t lane = 0; lane < p->lanes; lane++) {
            p->places[i].fds[lane] = open_device();
            if (p->places[i].fds[lane] < 0)
                return error_sys(err, errno, "opening " DEVICE " for the sandbox");
        }
    return 0;
}

void fuse_place_note(struct fuse_place *place, int fd)
{
    struct statx st;

    /* Nobody answers requests yet: nothing may be asked of the server, not even the type. */
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &st) == 0)
        place->fs = makedev(st.stx_dev_major, st.stx_dev_minor);
}

int fuse_place_clone(const struct fuse_place *place, size_t lanes, struct error *err)
{
    uint32_t first = (uint32_t)place->fds[0];

    for (size_t lane = 1; lane < lanes; lane++)
        if (ioctl(place->fds[lane], FUSE_DEV_IOC_CLONE, &first) < 0)
            return error_sys(err, errno, "cloning " DEVICE " for the sandbox");
    return 0;
}
