/* The image: made whole or not at all, checked, grown; it never shrinks. */
#include "base/file.h"
#include "base/log.h"
#include "host/ext4_super.h"
#include "host/state_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>

#define COMPONENT "mount"

#define MIB (1024u * 1024u)

static int is_odd(const struct state_dir *sd, const char *what, struct error *err)
{
    error_set(err, ERR_INVALID, "%s/" STATE_IMAGE_SHOWN ": %s", sd->path, what);
    return error_hint(err, STATE_HINT_MOVE);
}

int state_image_open(struct state_dir *sd, int flags, int *fd, struct stat *st, struct error *err)
{
    AUTO_FD int image =
        openat(sd->fd, STATE_IMAGE_NAME, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (image < 0 && errno == ENOENT)
        return 0;
    if (image < 0 && errno == ELOOP)
        return is_odd(sd, "is a symbolic link", err);
    if (image < 0 || fstat(image, st) < 0)
        return error_sys(err, errno, "opening %s/" STATE_IMAGE_SHOWN, sd->path);
    if (!S_ISREG(st->st_mode))
        return is_odd(sd, "is not a regular file", err);
    if (st->st_uid != geteuid()) {
        error_set(err, ERR_DENIED,
                  "%s/" STATE_IMAGE_SHOWN ": belongs to user %u, who could change it "
                  "while it is mounted",
                  sd->path, st->st_uid);
        return error_hint(err, "give it to the user who runs this, with chown, or use another "
                               "directory");
    }
    *fd = image;
    image = -1;
    return 1;
}

bool state_image_blank(int fd)
{
    /* Not by the count of blocks: what was just written may have none yet. */
    return lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO;
}

static bool read_super(int fd, struct ext4_super *out)
{
    uint8_t bytes[EXT4_SUPER_SIZE];

    return fd_pread_full(fd, bytes, sizeof(bytes), EXT4_SUPER_OFFSET, "image", NULL) == 0 &&
           ext4_super_parse(slice_of(bytes, sizeof(bytes)), out);
}

void state_image_report(int fd, const struct stat *st, struct state_report *out)
{
    struct ext4_super super;

    out->kind = STATE_IMAGE;
    out->size = (uint64_t)st->st_size;
    out->on_disk = (uint64_t)st->st_blocks * 512;
    out->fs = STATE_FS_NONE;
    if (fd < 0)
        return;
    if (!read_super(fd, &super)) {
        out->fs = STATE_FS_UNKNOWN;
        return;
    }
    out->used = super.bytes - super.free_bytes;
    out->fs = super.bytes > out->size ? STATE_FS_CUT
              : super.damaged         ? STATE_FS_DAMAGED
              : super.clean           ? STATE_FS_CLEAN
                                      : STATE_FS_DIRTY;
}

/* ---- making ---- */

static int sync_dir(const struct state_dir *sd, struct error *err)
{
    if (fsync(sd->fd) == 0)
        return 0;
    return error_sys(err, errno, "writing out the directory %s/" STATE_HOSTFS, sd->path);
}

static int remove_if_there(const struct state_dir *sd, const char *name, struct error *err)
{
    if (unlinkat(sd->fd, name, 0) == 0 || errno == ENOENT)
        return 0;
    return error_sys(err, errno, "removing %s/" STATE_HOSTFS "/%s", sd->path, name);
}

static int set_size(int fd, uint64_t size, const struct state_dir *sd, struct error *err)
{
    int sys;

    if (ftruncate(fd, (off_t)size) == 0)
        return 0;
    sys = errno;
    error_sys(err, sys, "giving %s/" STATE_IMAGE_SHOWN " its size of %ju MiB", sd->path,
              (uintmax_t)(size / MIB));
    return sys == EFBIG || sys == EINVAL
               ? error_hint(err, "this host file system takes no file of that size")
               : -1;
}

static int format(struct state_dir *sd, struct error *err)
{
    static const char *const argv[] = {
        "mkfs.ext4",      "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,root_owner=0:0",
        STATE_IMAGE_TEMP, NULL};
    AUTO_BUF struct buf said = BUF(STATE_TOOL_OUTPUT_MAX);
    char text[STATE_TOOL_SAID_SIZE];
    int status = state_tool_run(sd, argv, false, &said, err);

    if (status <= 0)
        return status;
    error_set(err, ERR_IO, "mkfs.ext4 failed with status %d: %s", status,
              state_tool_said(&said, text));
    return error_hint(err, STATE_HINT_ROOM, sd->path);
}

static int fill_temp(struct state_dir *sd, uint64_t size, struct error *err)
{
    AUTO_FD int fd =
        openat(sd->fd, STATE_IMAGE_TEMP, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_sys(err, errno, "making %s/" STATE_HOSTFS "/" STATE_IMAGE_TEMP, sd->path);
    /* The umask may have taken something away. */
    if (fchmod(fd, 0600) < 0 || set_size(fd, size, sd, err) < 0 || format(sd, err) < 0)
        return -1;
    if (fsync(fd) < 0)
        return error_sys(err, errno, "writing out the new image");
    return 0;
}

static int create(struct state_dir *sd, uint64_t size, struct error *err)
{
    int rc;

    log_info(COMPONENT, "making the image of a host mount", kv_str("directory", sd->path),
             kv_uint("size_mb", size / MIB));
    rc = fill_temp(sd, size, err);
    if (rc == 0 && renameat(sd->fd, STATE_IMAGE_TEMP, sd->fd, STATE_IMAGE_NAME) < 0)
        rc = error_sys(err, errno, "giving it its name");
    if (rc == 0)
        return sync_dir(sd, err);
    remove_if_there(sd, STATE_IMAGE_TEMP, NULL);
    return error_wrap(err, "making %s/" STATE_IMAGE_SHOWN, sd->path);
}

/* ---- checking ---- */

static const char *e2fsck_meaning(int status)
{
    if (status & 128)
        return "a shared library is missing";
    if (status & 32)
        return "it was interrupted";
    if (status & 16)
        return "it was called wrongly";
    if (status & 8)
        return "it could not do its work";
    if (status & 4)
        return "the file system has errors that only a repair with losses may mend";
    return "it wants the machine to be restarted";
}

/* e2fsck -p mends what needs no decision: the journal, counters, orphans. */
static int preen(struct state_dir *sd, bool force, struct error *err)
{
    const char *const plain[] = {"e2fsck", "-p", STATE_IMAGE_NAME, NULL};
    const char *const forced[] = {"e2fsck", "-f", "-p", STATE_IMAGE_NAME, NULL};
    AUTO_BUF struct buf said = BUF(STATE_TOOL_OUTPUT_MAX);
    char text[STATE_TOOL_SAID_SIZE];
    int status = state_tool_run(sd, force ? forced : plain, true, &said, err);

    if (status < 0)
        return -1;
    state_tool_said(&said, text);
    if (status <= 1) {
        log_info(COMPONENT, status ? "the file system was mended" : "the file system was checked",
                 kv_str("directory", sd->path), kv_str("e2fsck", text));
        return 0;
    }
    error_set(err, ERR_INVALID, "%s: e2fsck ended with status %d, %s: %s", sd->path, status,
              e2fsck_meaning(status), text);
    return error_hint(err,
                      "copy %s/" STATE_IMAGE_SHOWN ", then: capsule-cli mount check --repair "
                      "%s",
                      sd->path, sd->path);
}

/* ---- growing ---- */

static bool is_growing(const struct state_dir *sd)
{
    return faccessat(sd->fd, STATE_IMAGE_GROW, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int mark_growing(struct state_dir *sd, struct error *err)
{
    AUTO_FD int fd = openat(sd->fd, STATE_IMAGE_GROW,
                            O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_sys(err, errno, "making %s/" STATE_HOSTFS "/" STATE_IMAGE_GROW, sd->path);
    return sync_dir(sd, err);
}

static int resize(struct state_dir *sd, struct error *err)
{
    static const char *const argv[] = {"resize2fs", STATE_IMAGE_NAME, NULL};
    AUTO_BUF struct buf said = BUF(STATE_TOOL_OUTPUT_MAX);
    char text[STATE_TOOL_SAID_SIZE];
    int status;

    if (preen(sd, true, err) < 0)
        return -1;
    status = state_tool_run(sd, argv, true, &said, err);
    if (status <= 0)
        return status;
    return error_set(err, ERR_IO, "resize2fs failed with status %d: %s", status,
                     state_tool_said(&said, text));
}

/*
 * resize2fs that meets a full disk half-way leaves a file system that only a repair mends. What it
 * and the kernel after it write is the tables of the new part: 256 bytes for each 16 KiB of it.
 */
static int check_room_to_grow(const struct state_dir *sd, int fd, uint64_t by, struct error *err)
{
    const uint64_t need = by / 64 + 4 * MIB;
    struct statvfs host;
    uint64_t have;

    if (fstatvfs(fd, &host) < 0)
        return error_sys(err, errno, "asking for the free space of %s", sd->path);
    have = (uint64_t)host.f_bavail * host.f_frsize;
    if (have >= need)
        return 0;
    error_set(err, ERR_LIMIT, "that takes about %ju MiB, and its disk has %ju MiB free",
              (uintmax_t)(need / MIB), (uintmax_t)(have / MIB));
    return error_hint(err, "nothing was changed: free some space, or leave size_mb as it was");
}

/* A crash at any point leaves the mark, and the next run begins again from it. */
static int grow(struct state_dir *sd, int fd, uint64_t from, uint64_t size, struct error *err)
{
    log_info(COMPONENT, "growing the image of a host mount", kv_str("directory", sd->path),
             kv_uint("from_mb", from / MIB), kv_uint("to_mb", size / MIB));
    if (check_room_to_grow(sd, fd, size - from, err) < 0 || mark_growing(sd, err) < 0 ||
        set_size(fd, size, sd, err) < 0 || resize(sd, err) < 0)
        return error_wrap(err, "growing %s/" STATE_IMAGE_SHOWN, sd->path);
    if (fsync(fd) < 0)
        return error_sys(err, errno, "writing out %s/" STATE_IMAGE_SHOWN, sd->path);
    if (remove_if_there(sd, STATE_IMAGE_GROW, err) < 0)
        return -1;
    return sync_dir(sd, err);
}

/* ---- getting it ready ---- */

/* "64 MiB", or bytes when that would not be the whole truth. */
static void size_text(uint64_t size, char out[48])
{
    if (size % MIB == 0)
        snprintf(out, 48, "%ju MiB", (uintmax_t)(size / MIB));
    else
        snprintf(out, 48, "%ju bytes", (uintmax_t)size);
}

static int refuse_cut(const struct state_dir *sd, uint64_t size, uint64_t fs, struct error *err)
{
    char is[48], wants[48];

    size_text(size, is);
    size_text(fs, wants);
    error_set(err, ERR_INVALID, "%s/" STATE_IMAGE_SHOWN ": was cut to %s; its file system has %s",
              sd->path, is, wants);
    return error_hint(err, "put back a copy of it, or delete %s/" STATE_HOSTFS " to begin anew",
                      sd->path);
}

static int refuse_smaller(const struct state_dir *sd, uint64_t is, uint64_t wanted,
                          struct error *err)
{
    char have[48];

    size_text(is, have);
    error_set(err, ERR_INVALID, "%s: its image has %s, more than the %ju MiB asked for", sd->path,
              have, (uintmax_t)(wanted / MIB));
    return error_hint(err, "an image only grows: set size_mb to at least %ju",
                      (uintmax_t)((is + MIB - 1) / MIB));
}

static int use_existing(struct state_dir *sd, int fd, uint64_t is, uint64_t size, struct error *err)
{
    struct ext4_super super;

    if (!read_super(fd, &super)) {
        error_set(err, ERR_INVALID, "%s/" STATE_IMAGE_SHOWN ": holds no ext4 file system",
                  sd->path);
        return error_hint(err, "copy it, then: capsule-cli mount check --repair %s", sd->path);
    }
    if (super.bytes > is)
        return refuse_cut(sd, is, super.bytes, err);
    if (size < is)
        return refuse_smaller(sd, is, size, err);
    if (size > is || is_growing(sd))
        return grow(sd, fd, is, size, err);
    return super.clean && !super.damaged ? 0 : preen(sd, false, err);
}

int state_image_ready(struct state_dir *sd, uint64_t size_mb, struct error *err)
{
    AUTO_FD int fd = -1;
    struct stat st;
    int rc;

    if (size_mb == 0 || size_mb > STATE_SIZE_MB_MAX)
        return error_set(err, ERR_INVALID, "%s: a size of %ju MiB is not possible", sd->path,
                         (uintmax_t)size_mb);
    if (remove_if_there(sd, STATE_IMAGE_TEMP, err) < 0)
        return -1;
    rc = state_image_open(sd, O_RDWR, &fd, &st, err);
    if (rc < 0)
        return -1;
    if (rc == 0 || state_image_blank(fd))
        return create(sd, size_mb * MIB, err);
    if ((st.st_mode & 077) != 0 && fchmod(fd, 0600) < 0)
        return error_sys(err, errno, "closing %s/" STATE_IMAGE_SHOWN " to others", sd->path);
    return use_existing(sd, fd, (uint64_t)st.st_size, size_mb * MIB, err);
}
