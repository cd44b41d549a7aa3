/* Mounting the image, unmounting it, and what earlier runs left mounted. */
#include "base/clock.h"
#include "base/log.h"
#include "host/state_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/sysmacros.h>
#include <time.h>

#define COMPONENT "mount"

#define UMOUNT_TRIES    5
#define UMOUNT_PAUSE_MS 200
#define STALE_MAX       64          /* mounts in one directory, one over another */
#define MOUNTINFO_MAX   (16u << 20) /* bytes */

static void pause_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    while (nanosleep(&t, &t) < 0 && errno == EINTR)
        ;
}

/* ---- mountinfo ---- */

struct mount_entry {
    dev_t dev;
    char *where; /* into the text */
};

/* "\040" and the like are how the kernel writes blanks, newlines and backslashes. */
static void unescape(char *s)
{
    char *to = s;

    while (*s) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
            s[3] >= '0' && s[3] <= '7') {
            *to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
            s += 4;
        } else {
            *to++ = *s++;
        }
    }
    *to = '\0';
}

/* "ID PARENT MAJOR:MINOR ROOT WHERE ...": man 5 proc. */
static bool parse_entry(char *line, struct mount_entry *e)
{
    unsigned major, minor;
    char *save = NULL, *word = strtok_r(line, " ", &save);

    for (int i = 0; word && i < 2; i++)
        word = strtok_r(NULL, " ", &save);
    if (!word || sscanf(word, "%u:%u", &major, &minor) != 2)
        return false;
    strtok_r(NULL, " ", &save);
    e->where = strtok_r(NULL, " ", &save);
    if (!e->where)
        return false;
    unescape(e->where);
    e->dev = makedev(major, minor);
    return true;
}

/* The name of our mount point that an entry is mounted on, or NULL: PATH/mnt-UUID/data, where PATH
   is .capsule-hostfs by device and inode. */
static const char *own_mount(const struct state_dir *sd, const char *where,
                             char mnt[STATE_MNT_SIZE])
{
    static const char tail[] = "/" STATE_MNT_DATA;
    size_t n = strlen(where), start;
    AUTO_FREE char *dir = NULL;
    struct stat st;

    if (n <= strlen(tail) || strcmp(where + n - strlen(tail), tail) != 0)
        return NULL;
    n -= strlen(tail);
    for (start = n; start > 0 && where[start - 1] != '/'; start--)
        ;
    if (start == 0 || n - start >= STATE_MNT_SIZE ||
        strncmp(where + start, STATE_MNT_PREFIX, strlen(STATE_MNT_PREFIX)) != 0)
        return NULL;
    dir = xstrndup(where, start);
    if (stat(dir, &st) < 0 || st.st_dev != sd->dev || st.st_ino != sd->ino)
        return NULL;
    memcpy(mnt, where + start, n - start);
    mnt[n - start] = '\0';
    return mnt;
}

static int read_mounts(struct buf *text, struct error *err)
{
    return file_read("/proc/self/mountinfo", text, err);
}

bool state_mounted(struct state_dir *sd, char mnt[STATE_MNT_SIZE], dev_t *dev)
{
    AUTO_BUF struct buf text = BUF(MOUNTINFO_MAX);
    char *save = NULL, *line;

    if (read_mounts(&text, NULL) < 0)
        return false;
    for (line = strtok_r((char *)(uintptr_t)buf_cstr(&text), "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        struct mount_entry e;

        if (parse_entry(line, &e) && own_mount(sd, e.where, mnt)) {
            *dev = e.dev;
            return true;
        }
    }
    return false;
}

/* Where else in our namespace a device is mounted; NULL when nowhere. The caller frees it. */
static char *mounted_elsewhere(const struct state_dir *sd, dev_t dev)
{
    AUTO_BUF struct buf text = BUF(MOUNTINFO_MAX);
    char *save = NULL, *line, mnt[STATE_MNT_SIZE];

    if (read_mounts(&text, NULL) < 0)
        return NULL;
    for (line = strtok_r((char *)(uintptr_t)buf_cstr(&text), "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        struct mount_entry e;

        if (parse_entry(line, &e) && e.dev == dev && !own_mount(sd, e.where, mnt))
            return xstrdup(e.where);
    }
    return NULL;
}

/* ---- unmounting ---- */

/* Through the descriptor, so that nobody can put another directory in the path's way. */
static int umount_at(const struct state_dir *sd, const char *mnt, int flags)
{
    char path[32 + STATE_MNT_SIZE + 8];

    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s/" STATE_MNT_DATA, sd->fd, mnt);
    return umount2(path, flags | UMOUNT_NOFOLLOW);
}

/* Returns 0, or the errno of the last try. */
static int umount_patiently(const struct state_dir *sd, const char *mnt)
{
    for (int i = 0;; i++) {
        if (umount_at(sd, mnt, 0) == 0)
            return 0;
        if (errno != EBUSY || i == UMOUNT_TRIES)
            return errno;
        pause_ms(UMOUNT_PAUSE_MS);
    }
}

/* Removes the two empty directories; never more than that. */
static int remove_mount_point(const struct state_dir *sd, const char *mnt)
{
    AUTO_FREE char *data = xasprintf("%s/" STATE_MNT_DATA, mnt);

    if (unlinkat(sd->fd, data, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return -1;
    return unlinkat(sd->fd, mnt, AT_REMOVEDIR) < 0 && errno != ENOENT ? -1 : 0;
}

/* What the kernel could not write shows here, and nowhere later. */
static int write_out(const struct state_dir *sd, struct error *err)
{
    AUTO_FREE char *name = xasprintf("%s/" STATE_MNT_DATA, sd->mnt);
    AUTO_FD int fd = openat(sd->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0 && syncfs(fd) == 0)
        return 0;
    error_sys(err, errno, "%s: writing out the host mount", sd->path);
    return error_hint(err,
                      "what the app wrote last may be lost; see that the disk below is "
                      "neither full nor failing, then `capsule-cli mount check %s`",
                      sd->path);
}

static dev_t device_of(const struct state_dir *sd, const char *mnt)
{
    AUTO_FREE char *name = xasprintf("%s/" STATE_MNT_DATA, mnt);
    struct stat st;

    return fstatat(sd->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_dev : 0;
}

static void detach(struct state_dir *sd, const char *mnt, dev_t dev)
{
    char users[256];

    state_users(&(struct state_wanted){.dev = dev, .mount = dev}, users, sizeof(users));
    if (umount_at(sd, mnt, MNT_DETACH) < 0)
        return;
    log_warn(COMPONENT,
             "still in use, so the host mount was detached and goes when its last user does",
             kv_str("directory", sd->path), kv_str("used_by", users[0] ? users : "unknown"));
}

/* Autoclear may take a moment longer than umount(2); the next run should not trip over it. */
static bool loop_gone(struct state_dir *sd, char loop[STATE_LOOP_SIZE], dev_t *number)
{
    int64_t deadline = clock_mono_ms() + 1000;
    struct stat st;

    while (fstatat(sd->fd, STATE_IMAGE_NAME, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           state_loop_find(st.st_dev, st.st_ino, loop, number)) {
        if (clock_mono_ms() >= deadline)
            return false;
        pause_ms(20);
    }
    return true;
}

static int take_down(struct state_dir *sd, const char *mnt, struct error *err)
{
    char loop[STATE_LOOP_SIZE];
    dev_t dev = device_of(sd, mnt), number;
    int sys = umount_patiently(sd, mnt);

    if (sys == EBUSY)
        detach(sd, mnt, dev);
    else if (sys == 0)
        loop_gone(sd, loop, &number);
    else if (sys != EINVAL) /* nothing mounted there: somebody was faster */
        return error_sys(err, sys, "unmounting %s/" STATE_HOSTFS "/%s/" STATE_MNT_DATA, sd->path,
                         mnt);
    if (remove_mount_point(sd, mnt) == 0)
        return 0;
    return error_sys(err, errno,
                     "removing the mount point %s/" STATE_HOSTFS "/%s (all in it is left as it is)",
                     sd->path, mnt);
}

int state_unmount(struct state_dir *sd, struct error *err)
{
    struct error second = {0};
    int rc;

    if (!sd->mnt[0])
        return 0;
    rc = write_out(sd, err);
    if (take_down(sd, sd->mnt, rc < 0 ? &second : err) < 0 && rc == 0)
        rc = -1;
    else if (second.kind != ERR_NONE)
        log_error(COMPONENT, second.msg);
    sd->mnt[0] = '\0'; /* what could not be undone is the next run's */
    return rc;
}

/* ---- what is left of earlier runs ---- */

static int refuse_busy(const struct state_dir *sd, const char *what, dev_t dev, struct error *err)
{
    char users[256];

    state_users(&(struct state_wanted){.dev = dev, .mount = dev}, users, sizeof(users));
    error_set(err, ERR_EXISTS, "%s: %s, in use by %s", sd->path, what,
              users[0] ? users : "somebody who cannot be seen from here");
    return error_hint(err, "wait for its end, or end it");
}

static int unmount_stale(struct state_dir *sd, struct error *err)
{
    char mnt[STATE_MNT_SIZE];
    dev_t dev;

    for (int i = 0; i < STALE_MAX && state_mounted(sd, mnt, &dev); i++) {
        int sys = umount_patiently(sd, mnt);

        if (sys == EBUSY)
            return refuse_busy(sd, "an earlier run left its image mounted", dev, err);
        if (sys != 0)
            return error_sys(err, sys, "%s: unmounting what an earlier run left mounted at %s",
                             sd->path, mnt);
        log_info(COMPONENT, "unmounted what an earlier run left", kv_str("directory", sd->path));
    }
    return 0;
}

static int refuse_attached(struct state_dir *sd, struct error *err)
{
    AUTO_FREE char *where = NULL, *what = NULL;
    char loop[STATE_LOOP_SIZE], users[256];
    struct stat st;
    dev_t number;

    if (loop_gone(sd, loop, &number))
        return 0;
    where = mounted_elsewhere(sd, number);
    if (where) {
        error_set(err, ERR_EXISTS, "%s: its " STATE_IMAGE_NAME " is mounted at %s", sd->path,
                  where);
        return error_hint(err, "unmount it there first: umount %s", where);
    }
    state_users(&(struct state_wanted){.dev = number, .mount = number}, users, sizeof(users));
    what = xasprintf("its " STATE_IMAGE_NAME " is attached to %s", loop);
    if (users[0])
        return refuse_busy(sd, what, number, err);
    /* Or the device node itself is open. */
    if (stat(loop, &st) == 0)
        state_users(&(struct state_wanted){.dev = st.st_dev, .ino = st.st_ino}, users,
                    sizeof(users));
    error_set(err, ERR_EXISTS, "%s: %s%s%s", sd->path, what, users[0] ? ", in use by " : "", users);
    return error_hint(err, "detach it first, if nobody needs it: losetup -d %s", loop);
}

/* The empty mount points of runs that were killed. */
static void sweep(struct state_dir *sd)
{
    int fd = openat(sd->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (!dir) {
        fd_close(&fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));)
        if (strncmp(e->d_name, STATE_MNT_PREFIX, strlen(STATE_MNT_PREFIX)) == 0 &&
            remove_mount_point(sd, e->d_name) < 0)
            log_warn(COMPONENT, "the mount point of an earlier run is not empty, and stays",
                     kv_str("directory", sd->path), kv_str("name", e->d_name));
    closedir(dir);
}

int state_release_stale(struct state_dir *sd, struct error *err)
{
    if (unmount_stale(sd, err) < 0 || refuse_attached(sd, err) < 0)
        return -1;
    sweep(sd);
    return 0;
}

/* ---- mounting ---- */

/* "mnt-" and a version 4 UUID, as the reference names it. */
static int name_mount(char mnt[STATE_MNT_SIZE], struct error *err)
{
    uint8_t r[16];

    if (getrandom(r, sizeof(r), 0) != sizeof(r))
        return error_sys(err, errno, "getrandom");
    r[6] = (uint8_t)((r[6] & 0x0f) | 0x40);
    r[8] = (uint8_t)((r[8] & 0x3f) | 0x80);
    snprintf(mnt, STATE_MNT_SIZE, STATE_MNT_PREFIX "%08x-%04x-%04x-%04x-%08x%04x", get_be32(r),
             get_be16(r + 4), get_be16(r + 6), get_be16(r + 8), get_be32(r + 10), get_be16(r + 14));
    return 0;
}

/* Returns the mount point's descriptor, or -1; what was made then goes with the caller's cleanup.
 */
static int make_mount_point(struct state_dir *sd, const char *mnt, struct error *err)
{
    AUTO_FD int parent = -1;
    int fd = -1;

    if (mkdirat(sd->fd, mnt, 0700) == 0)
        parent = openat(sd->fd, mnt, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (parent >= 0 && mkdirat(parent, STATE_MNT_DATA, 0700) == 0)
        fd = openat(parent, STATE_MNT_DATA, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        error_sys(err, errno, "making the mount point %s/" STATE_HOSTFS "/%s", sd->path, mnt);
    return fd;
}

static int mount_image(struct state_dir *sd, int target, bool read_only, struct error *err)
{
    AUTO_FREE char *shown = xasprintf("%s/" STATE_IMAGE_SHOWN, sd->path);
    AUTO_FD int image = -1, loop = -1;
    char name[STATE_LOOP_SIZE], path[32];
    struct stat st;
    int rc = state_image_open(sd, O_RDWR, &image, &st, err), sys;

    if (rc <= 0)
        return rc < 0 ? -1 : error_set(err, ERR_NOT_FOUND, "%s: gone", shown);
    loop = state_loop_attach(image, shown, name, err);
    if (loop < 0)
        return -1;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", target);
    if (mount(name, path, "ext4",
              MS_NODEV | MS_NOSUID | MS_NOEXEC | MS_NOATIME | (read_only ? MS_RDONLY : 0),
              "errors=remount-ro") == 0)
        return 0;
    sys = errno;
    error_sys(err, sys, "mounting %s", shown);
    if (sys == EPERM || sys == EACCES)
        return error_hint(err, "root may not mount here; a container needs CAP_SYS_ADMIN for it");
    return error_hint(err, "see what is wrong with it: capsule-cli mount check %s", sd->path);
}

int state_mount(struct state_dir *sd, bool read_only, struct error *err)
{
    char mnt[STATE_MNT_SIZE];
    AUTO_FD int target = -1;

    if (name_mount(mnt, err) < 0)
        return -1;
    target = make_mount_point(sd, mnt, err);
    if (target < 0 || mount_image(sd, target, read_only, err) < 0) {
        fd_close(&target);
        remove_mount_point(sd, mnt);
        return -1;
    }
    memcpy(sd->mnt, mnt, sizeof(mnt));
    return 0;
}
