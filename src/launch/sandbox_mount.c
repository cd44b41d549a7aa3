#include "launch/sandbox_mount.h"

#include "base/file.h"
#include "base/mem.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

struct option {
    const char *key;
    const char *value; /* NULL: a flag */
};

/* A mount that is nowhere yet; the list of options ends with a NULL key. Returns its fd or -1. */
static int make_mount(const char *type, const struct option *options, unsigned int attr,
                      struct error *err)
{
    AUTO_FD int fs = fsopen(type, FSOPEN_CLOEXEC);
    int fd;

    if (fs < 0)
        return error_sys(err, errno, "mounting %s in the sandbox", type);
    for (; options && options->key; options++)
        if (fsconfig(fs, options->value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, options->key,
                     options->value, 0) < 0)
            return error_sys(err, errno, "mounting %s in the sandbox: option %s", type,
                             options->key);
    if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return error_sys(err, errno, "mounting %s in the sandbox", type);
    fd = fsmount(fs, FSMOUNT_CLOEXEC, attr);
    if (fd < 0)
        return error_sys(err, errno, "mounting %s in the sandbox", type);
    return fd;
}

static int attach(int mount, int dir, const char *name, const char *what, struct error *err)
{
    unsigned int flags = MOVE_MOUNT_F_EMPTY_PATH | (name[0] ? 0 : MOVE_MOUNT_T_EMPTY_PATH);

    if (move_mount(mount, "", dir, name, flags) < 0)
        return error_sys(err, errno, "mounting %s in the sandbox", what);
    return 0;
}

/* A copy of an existing directory's mount; its fd or -1. `..` at its top stays there. */
static int clone_mount(int dir, const char *what, struct error *err)
{
    int fd = open_tree(dir, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);

    return fd >= 0 ? fd : error_sys(err, errno, "bringing %s into the sandbox", what);
}

static int make_dir(int dir, const char *name, struct error *err)
{
    if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
        return error_sys(err, errno, "making directory %s in the sandbox", name);
    return 0;
}

/* ---- root ---- */

/* The directory that overlayfs writes to gets the mode and owner of the image's root. */
static int dress_upper(int base, const char *upper, int rootfs, struct error *err)
{
    struct stat st;

    if (fstatat(rootfs, "", &st, AT_EMPTY_PATH) < 0 ||
        fchownat(base, upper, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        fchmodat(base, upper, st.st_mode & 07777, 0) < 0)
        return error_sys(err, errno, "preparing the sandbox's root directory");
    return 0;
}

static bool has_user_xattrs(int base)
{
    int fd = openat(base, "upper", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool ok = fd >= 0 && fsetxattr(fd, "user.capsule", "1", 1, 0) == 0;

    if (ok)
        fremovexattr(fd, "user.capsule");
    fd_close(&fd);
    return ok;
}

/* Layers are named relative to the working directory, so no path of the machine is looked up. */
static int mount_overlay(bool on_disk, struct error *err)
{
    const struct option options[] = {
        {"lowerdir", "lower"},
        {"upperdir", on_disk ? "disk/upper" : "upper"},
        {"workdir", on_disk ? "disk/work" : "work"},
        {"userxattr", NULL},
        {0},
    };
    int fd = make_mount("overlay", options, MOUNT_ATTR_NODEV, err);

    if (fd < 0)
        error_hint(err, "the sandbox needs overlayfs in user namespaces (Linux 5.11), and a cache "
                        "on a local file system: XDG_CACHE_HOME chooses another place");
    return fd;
}

/* Returns the fd of the new root, mounted at BASE/root, or -1. */
static int make_root(const struct enter_plan *plan, const struct mount_places *places,
                     bool *disk_upper, struct error *err)
{
    static const char *const dirs[] = {"lower", "upper", "work", "root", "disk"};
    const struct option options[] = {
        {"size", plan->size}, {"nr_inodes", plan->inodes}, {"mode", "0755"}, {0}};
    AUTO_FD int base = make_mount("tmpfs", options, QUIET, err);
    AUTO_FD int lower = -1, disk = -1;
    int root;

    if (base < 0 || attach(base, places->mount_point, "", "memory", err) < 0)
        return -1;
    if (fchdir(base) < 0)
        return error_sys(err, errno, "entering the sandbox's memory");
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        if (make_dir(base, dirs[i], err) < 0)
            return -1;
    lower = clone_mount(places->rootfs, "the image", err);
    if (lower < 0 || attach(lower, base, "lower", "the image", err) < 0)
        return -1;
    *disk_upper = !has_user_xattrs(base);
    if (*disk_upper) {
        disk = clone_mount(places->disk, "the working directory", err);
        if (disk < 0 || attach(disk, base, "disk", "the working directory", err) < 0)
            return -1;
    }
    if (dress_upper(base, *disk_upper ? "disk/upper" : "upper", places->rootfs, err) < 0)
        return -1;
    root = mount_overlay(*disk_upper, err);
    if (root >= 0 && attach(root, base, "root", "the root", err) < 0)
        fd_close(&root);
    return root;
}

/* ---- what goes into it ---- */

static int find_inside(int root, const char *name)
{
    const struct open_how how = {
        .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };

    return (int)syscall(SYS_openat2, root, name, &how, sizeof(how));
}

/*
 * A directory of the image to mount on, made when it is missing. The image may have symbolic links
 * there: they lead to places in the image, never out. `above` is the directory that has or gets it.
 */
static int open_below(int root, int above, const char *name, struct error *err)
{
    const char *slash = strrchr(name, '/');
    int fd = find_inside(root, name);

    if (fd < 0 && errno == ENOENT && mkdirat(above, slash ? slash + 1 : name, 0755) == 0)
        fd = find_inside(root, name);
    if (fd < 0) {
        error_sys(err, errno, "mounting on /%s of the image", name);
        error_hint(err, "it has to be a directory, or not be there");
    }
    return fd;
}

static int open_inside(int root, const char *name, struct error *err)
{
    return open_below(root, root, name, err);
}

/* The same for a path of several parts, each of which may have to be made. */
static int open_path_inside(int root, const char *path, struct error *err)
{
    AUTO_FD int above = -1;
    char name[PATH_MAX];
    const char *end = path;
    int fd;

    if (strlen(path) >= sizeof(name))
        return error_sys(err, ENAMETOOLONG, "mounting on a path of the image");
    for (;;) {
        end = strchrnul(end, '/');
        memcpy(name, path, (size_t)(end - path));
        name[end - path] = 0;
        fd = open_below(root, above < 0 ? root : above, name, err);
        if (fd < 0 || !*end++)
            return fd;
        fd_close(&above);
        above = fd;
    }
}

/* Mounts on ROOT/NAME; the result is the mount's fd, which the caller closes, or -1. */
static int mount_inside(int root, const char *name, const char *type, const struct option *options,
                        unsigned int attr, struct error *err)
{
    AUTO_FD int at = open_inside(root, name, err);
    int fd = at < 0 ? -1 : make_mount(type, options, attr, err);

    if (fd >= 0 && attach(fd, at, "", name, err) < 0)
        fd_close(&fd);
    return fd;
}

struct node {
    const char *name, *path;
    unsigned int major, minor;
};
static const struct node nodes[] = {
    {"null", "/dev/null", 1, 3},     {"zero", "/dev/zero", 1, 5},       {"full", "/dev/full", 1, 7},
    {"random", "/dev/random", 1, 8}, {"urandom", "/dev/urandom", 1, 9}, {"tty", "/dev/tty", 5, 0},
};

/* A user namespace cannot make device nodes; it may show the machine's own. */
static int bring_node(int dev, const struct node *n, struct error *err)
{
    AUTO_FD int file = openat(dev, n->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    AUTO_FD int node = open_tree(AT_FDCWD, n->path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    struct stat st;

    if (file < 0 || node < 0 || fstatat(node, "", &st, AT_EMPTY_PATH) < 0)
        return error_sys(err, errno, "bringing %s into the sandbox", n->path);
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(n->major, n->minor))
        return error_set(err, ERR_INVALID, "bringing %s into the sandbox: it is not device %u:%u",
                         n->path, n->major, n->minor);
    return attach(node, dev, n->name, n->path, err);
}

static int make_dev(const struct enter_plan *plan, int root, struct error *err)
{
    static const struct {
        const char *name, *target;
    } links[] = {{"fd", "/proc/self/fd"},
                 {"stdin", "/proc/self/fd/0"},
                 {"stdout", "/proc/self/fd/1"},
                 {"stderr", "/proc/self/fd/2"},
                 {"ptmx", "pts/ptmx"}};
    const struct option dev_options[] = {
        {"size", "1048576"}, {"nr_inodes", "1024"}, {"mode", "0755"}, {0}};
    const struct option shm_options[] = {
        {"size", plan->size}, {"nr_inodes", plan->inodes}, {"mode", "1777"}, {0}};
    /* gid 5 is Debian's tty group, which a map of one id does not have. */
    const struct option pts_options[] = {
        {"mode", "0620"}, {"ptmxmode", "0666"}, {"gid", plan->map->single ? "0" : "5"}, {0}};
    AUTO_FD int dev =
        mount_inside(root, "dev", "tmpfs", dev_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err);
    AUTO_FD int pts = -1, shm = -1;

    if (dev < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_LEN(nodes); i++)
        if (bring_node(dev, &nodes[i], err) < 0)
            return -1;
    for (size_t i = 0; i < ARRAY_LEN(links); i++)
        if (symlinkat(links[i].target, dev, links[i].name) < 0)
            return error_sys(err, errno, "making /dev/%s in the sandbox", links[i].name);
    pts =
        mount_inside(dev, "pts", "devpts", pts_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err);
    if (pts < 0)
        return -1;
    shm = mount_inside(dev, "shm", "tmpfs", shm_options, QUIET, err);
    return shm < 0 ? -1 : 0;
}

/*
 * Parts of /proc that speak of the machine become read-only. Their permission bits say so too, but
 * only to ids that are not the machine's own root, which a nested user namespace may pass on.
 */
static int freeze_proc(int proc, struct error *err)
{
    static const char *const names[] = {"sys", "sysrq-trigger", "irq", "bus", "fs"};
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | QUIET};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        AUTO_FD int fd = open_tree(proc, names[i], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

        if (fd < 0 && errno == ENOENT)
            continue; /* kernels differ */
        if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ||
            move_mount(fd, "", proc, names[i], MOVE_MOUNT_F_EMPTY_PATH) < 0)
            return error_sys(err, errno, "making /proc/%s of the sandbox read-only", names[i]);
    }
    return 0;
}

static int make_rest(const struct enter_plan *plan, int root, struct error *err)
{
    const struct option run_options[] = {
        {"size", plan->size}, {"nr_inodes", plan->inodes}, {"mode", "0755"}, {0}};
    const struct option tmp_options[] = {
        {"size", plan->size}, {"nr_inodes", plan->inodes}, {"mode", "1777"}, {0}};
    /* The machine's hardware is none of the app's business. */
    const struct option sys_options[] = {
        {"size", "4096"}, {"nr_inodes", "2"}, {"mode", "0555"}, {0}};
    AUTO_FD int proc = mount_inside(root, "proc", "proc", NULL, QUIET, err);
    AUTO_FD int sys = -1, run = -1, tmp = -1;

    if (proc < 0)
        return error_hint(err, "a machine that hides parts of its own /proc, as containers do, "
                               "does not let a sandbox have one: run outside of the container");
    if (freeze_proc(proc, err) < 0)
        return -1;
    sys = mount_inside(root, "sys", "tmpfs", sys_options, QUIET | MOUNT_ATTR_RDONLY, err);
    if (sys < 0)
        return -1;
    run = mount_inside(root, "run", "tmpfs", run_options, QUIET, err);
    if (run < 0)
        return -1;
    /* Programs unpack libraries into /tmp and map them; capsule-init allows it, too. */
    tmp = mount_inside(root, "tmp", "tmpfs", tmp_options, QUIET & ~(unsigned int)MOUNT_ATTR_NOEXEC,
                       err);
    return tmp < 0 ? -1 : 0;
}

/* The same mount as the runtime makes where it may (enclave/mount_fuse.c). */
static int make_host_mount(struct fuse_place *place, size_t lanes, int root, struct error *err)
{
    char fd_text[16], most[16];
    const struct option options[] = {{"source", place->source}, {"subtype", "hostfs"},
                                     {"fd", fd_text},           {"rootmode", "40755"},
                                     {"user_id", "0"},          {"group_id", "0"},
                                     {"allow_other", NULL},     {"default_permissions", NULL},
                                     {"max_read", most},        {0}};
    AUTO_FD int at = open_path_inside(root, place->path, err);
    AUTO_FD int fd = -1;

    snprintf(fd_text, sizeof(fd_text), "%d", place->fds[0]);
    snprintf(most, sizeof(most), "%u", MOUNT_IO_MAX);
    if (at < 0)
        return -1;
    fd = make_mount("fuse", options, QUIET | (place->read_only ? MOUNT_ATTR_RDONLY : 0), err);
    if (fd < 0 || attach(fd, at, "", place->path, err) < 0)
        return -1;
    fuse_place_note(place, fd);
    return fuse_place_clone(place, lanes, err);
}

static int make_host_mounts(const struct fuse_plan *fuse, int root, struct error *err)
{
    for (size_t i = 0; i < fuse->count; i++)
        if (make_host_mount(&fuse->places[i], fuse->lanes, root, err) < 0)
            return -1;
    return 0;
}

/* Read-only: connecting to a socket needs no more, and no name in it can be made or replaced. */
static int make_carrier(int dir, int *carrier, struct error *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | QUIET};

    if (dir < 0)
        return 0;
    *carrier = clone_mount(dir, "the carrier directory", err);
    if (*carrier < 0)
        return -1;
    if (mount_setattr(*carrier, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        return error_sys(err, errno, "restricting the carrier directory");
    return 0;
}

/* `root` becomes "/", and the machine's root goes with everything mounted on it: pivot_root(2). */
static int swap_root(int root, struct error *err)
{
    if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0) {
        error_sys(err, errno, "changing to the sandbox's root");
        return error_hint(err, "a machine that runs from its initial ramdisk has no root that can "
                               "be changed");
    }
    if (umount2(".", MNT_DETACH) < 0)
        return error_sys(err, errno, "unmounting the machine's root");
    if (chdir("/") < 0)
        return error_sys(err, errno, "entering the sandbox's root");
    return 0;
}

int sandbox_mount_all(const struct enter_plan *plan, const struct mount_places *places,
                      int *carrier, bool *disk_upper, struct error *err)
{
    AUTO_FD int root = -1;

    /* Neither may our mounts show outside, nor new ones of the machine inside. */
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        error_sys(err, errno, "separating the sandbox's mounts");
        return idmap_hint(err, err ? err->sys : EPERM);
    }
    root = make_root(plan, places, disk_upper, err);
    if (root < 0 || make_dev(plan, root, err) < 0 || make_rest(plan, root, err) < 0 ||
        make_host_mounts(plan->fuse, root, err) < 0 ||
        make_carrier(places->carrier, carrier, err) < 0)
        return -1;
    return swap_root(root, err);
}
