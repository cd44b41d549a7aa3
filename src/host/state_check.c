/* What `capsule-cli mount check` and `resize` do to an image that nobody uses. */
#include "host/state_priv.h"

#include <errno.h>
#include <fcntl.h>

/* With the lock and the image's descriptor, or -1. */
static int open_idle(struct state_dir *sd, int flags, int *fd, struct error *err)
{
    struct stat st;
    int rc;

    if (state_lock(sd, err) < 0 || state_release_stale(sd, err) < 0)
        return -1;
    rc = state_image_open(sd, flags, fd, &st, err);
    if (rc == 0)
        return error_set(err, ERR_NOT_FOUND, "%s: holds no image", sd->path);
    return rc < 0 ? -1 : 0;
}

static int check(struct state_dir *sd, bool repair, struct buf *out, struct error *err)
{
    const char *const argv[] = {"e2fsck", "-f", repair ? "-y" : "-n", STATE_IMAGE_NAME, NULL};
    char text[STATE_TOOL_SAID_SIZE];
    AUTO_FD int fd = -1;
    int status;

    if (open_idle(sd, repair ? O_RDWR : O_RDONLY, &fd, err) < 0)
        return -1;
    status = state_tool_run(sd, argv, repair, out, err);
    if (status < 0)
        return -1;
    if (repair && fsync(fd) < 0)
        return error_sys(err, errno, "writing out %s/" STATE_IMAGE_SHOWN, sd->path);
    if (status & ~7)
        return error_set(err, ERR_IO, "%s: e2fsck could not check it (status %d): %s", sd->path,
                         status, state_tool_said(out, text));
    return (status & 4) == 0;
}

int state_dir_check(struct state_dir *sd, bool repair, struct buf *out, struct error *err)
{
    int rc = check(sd, repair, out, err);

    state_unlock(sd);
    return rc;
}

int state_dir_resize(struct state_dir *sd, uint64_t size_mb, struct error *err)
{
    AUTO_FD int fd = -1;
    int rc = open_idle(sd, O_RDWR, &fd, err);

    if (rc == 0)
        rc = state_image_ready(sd, size_mb, err);
    state_unlock(sd);
    return rc;
}
