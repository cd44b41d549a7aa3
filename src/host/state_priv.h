/* What the files of the state directory share. */
#ifndef CAPSULE_HOST_STATE_PRIV_H
#define CAPSULE_HOST_STATE_PRIV_H

#include "base/file.h"
#include "host/state_dir.h"

#include <sys/stat.h>

#define STATE_HOSTFS     ".capsule-hostfs"
#define STATE_LOCK       "lock"
#define STATE_IMAGE_NAME "disk.img"
#define STATE_IMAGE_TEMP "disk.img.tmp"
#define STATE_IMAGE_GROW "disk.img.grow"
#define STATE_TREE_NAME  "tree"
#define STATE_MNT_PREFIX "mnt-"
#define STATE_MNT_DATA   "data"
#define STATE_MNT_SIZE   48 /* "mnt-UUID" */

#define STATE_IMAGE_SHOWN STATE_HOSTFS "/" STATE_IMAGE_NAME

/* What to do, said in more than one place; ROOM wants the directory. */
#define STATE_HINT_ROOM "make room where %s lies, or use a directory elsewhere"
#define STATE_HINT_MOVE "move it away, or use another directory"

struct state_dir {
    char *path;   /* of STATE_DIR, resolved */
    bool exposed; /* others than we and root may rename what is in STATE_DIR */
    int fd;       /* .capsule-hostfs */
    dev_t dev;    /* of .capsule-hostfs */
    ino_t ino;
    int lock;                 /* -1: not held */
    char mnt[STATE_MNT_SIZE]; /* our mount point, empty when there is none */
    char *served;
};

/* Takes the lock, unless it is held. ERR_EXISTS, with who has it. */
int state_lock(struct state_dir *sd, struct error *err);
void state_unlock(struct state_dir *sd);

/* ---- state_image.c ---- */

/*
 * Opens the image. Returns 1 with *fd (the caller's) and *st, 0 when there is none, or -1. Refuses
 * what is not a regular file of ours.
 */
int state_image_open(struct state_dir *sd, int flags, int *fd, struct stat *st, struct error *err);
/* Whether nothing was ever written to it, which a crash of the reference leaves. */
bool state_image_blank(int fd);
/* Under the lock and not mounted: makes it, mends what a crash left, and brings it to size. */
int state_image_ready(struct state_dir *sd, uint64_t size_mb, struct error *err);
/* The report's image part. */
void state_image_report(int fd, const struct stat *st, struct state_report *out);

/* ---- state_mount.c ---- */

/* Under the lock: gives the image its mount point and mounts it. */
int state_mount(struct state_dir *sd, bool read_only, struct error *err);
/* state_dir_release() without the lock. */
int state_unmount(struct state_dir *sd, struct error *err);
/*
 * Under the lock: unmounts what an earlier run left in this directory and removes its empty mount
 * points. ERR_EXISTS when somebody still uses the image, with the name.
 */
int state_release_stale(struct state_dir *sd, struct error *err);
/* A mount of ours in this directory: its name ("mnt-UUID") and device. False when none. */
bool state_mounted(struct state_dir *sd, char mnt[STATE_MNT_SIZE], dev_t *dev);

/* ---- state_loop.c ---- */

#define STATE_LOOP_SIZE 32 /* "/dev/loopN" */

/*
 * Attaches an image, open for reading and writing, to a free loop device that lets go of it with
 * its last user. Returns the device's descriptor, which must stay open until the mount, or -1.
 */
int state_loop_attach(int image, const char *shown, char name[STATE_LOOP_SIZE], struct error *err);
/* The loop device whose backing file has this device and inode. False when none. */
bool state_loop_find(dev_t dev, ino_t ino, char name[STATE_LOOP_SIZE], dev_t *loop);
/* Adds the backing files of all loop devices that end in `suffix`, without it. */
void state_loop_backing(const char *suffix, char ***paths);

/* ---- state_users.c ---- */

/* Who is looked for; the fields that are 0 do not count. */
struct state_wanted {
    dev_t dev; /* with ino, that file; alone, anything on this device */
    ino_t ino;
    dev_t mount; /* who has this device mounted in a mount namespace other than ours */
};
/*
 * The processes, other than this one, that have it open or as working or root directory:
 * "bash (process 12), cat (process 34) and 2 more". Empty when none can be seen.
 */
void state_users(const struct state_wanted *w, char *out, size_t size);
/* Whether a device is mounted in a process's mount namespace; false when that cannot be read. */
bool state_mounted_for(dev_t dev, pid_t pid);
/* Adds the targets of all processes' descriptors that end in `suffix`, without it. */
void state_users_of_suffix(const char *suffix, char ***paths);

/* ---- state_tool.c: the programs of e2fsprogs ---- */

/*
 * Runs one in .capsule-hostfs, with the lock's descriptor, so that the directory stays locked if
 * we are killed. `finish`: it then runs to its end all the same, since stopping it half-way is
 * worse. The end of the first MiB that it printed, up to STATE_TOOL_OUTPUT_MAX bytes, is
 * appended to `out`. Returns its exit status; -1 when
 * it cannot be run or was killed.
 */
int state_tool_run(struct state_dir *sd, const char *const *argv, bool finish, struct buf *out,
                   struct error *err);
/* Its last few lines in one, for a message. Borrowed from `text`. */
#define STATE_TOOL_SAID_SIZE 512
const char *state_tool_said(const struct buf *out, char text[STATE_TOOL_SAID_SIZE]);
#define STATE_TOOL_OUTPUT_MAX (64u << 10)

#endif
