#include "launch/sandbox_run.h"

#include "base/file.h"
#include "base/log.h"
#include "base/xdg.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

int sandbox_cache_dir(char **path, struct error *err)
{
    char *dir = xdg_dir(XDG_CACHE, "sandbox", "the sandbox's cache", err);
    struct stat st;

    if (!dir)
        return -1;
    if (dir_make_all(dir, 0700, err) < 0) {
        free(dir);
        return error_hint(err, "set XDG_CACHE_HOME to a directory that can be written");
    }
    /* Unpacked images hold set-user-ID programs; nobody else may reach them. */
    if (lstat(dir, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        ((st.st_mode & 077) != 0 && chmod(dir, 0700) < 0)) {
        error_set(err, ERR_DENIED, "the sandbox's cache %s belongs to somebody else", dir);
        free(dir);
        return error_hint(err, "set XDG_CACHE_HOME to a directory of your own");
    }
    *path = dir;
    return 0;
}

static int make_inside(int dir, const struct idmap *map, struct error *err)
{
    static const char *const given[] = {"disk", "disk/upper", "disk/work"};

    if (mkdirat(dir, "mnt", 0755) < 0)
        return error_sys(err, errno, "making the sandbox's mount point");
    for (size_t i = 0; i < ARRAY_LEN(given); i++) {
        if (mkdirat(dir, given[i], 0755) < 0)
            return error_sys(err, errno, "making the sandbox's working directory %s", given[i]);
        if (map->root_uid != geteuid() &&
            fchownat(dir, given[i], map->root_uid, map->root_gid, AT_SYMLINK_NOFOLLOW) < 0)
            return error_sys(err, errno, "giving the sandbox its working directory %s", given[i]);
    }
    return 0;
}

static int clear(int dir, const char *path, const struct idmap *map, struct error *err)
{
    AUTO_FREE char *disk = xasprintf("%s/disk", path);
    struct stat st;

    /* Empty directories go without help; a process for it costs milliseconds. */
    if (unlinkat(dir, "disk/work", AT_REMOVEDIR) == 0 &&
        unlinkat(dir, "disk/upper", AT_REMOVEDIR) == 0)
        unlinkat(dir, "disk", AT_REMOVEDIR);
    if (fstatat(dir, "disk", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        idmap_tree_remove(map, disk, err) < 0)
        return -1;
    return tree_remove(path, err);
}

/* Only groups that carry the run's own name are touched. */
static bool named_after(const char *path, const char *run)
{
    const char *slash = strrchr(path, '/');

    return slash && strcmp(slash + 1, run) == 0;
}

static void remove_noted_groups(int dir, const char *run)
{
    AUTO_BUF struct buf text = BUF(65536);
    AUTO_FD int fd = openat(dir, "cgroups", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct cgroup_set set = {0};
    struct error err = {0};
    char *save = NULL;

    if (fd < 0 || fd_read_all(fd, &text, "cgroups", NULL) < 0 || buf_append_byte(&text, 0) < 0)
        return;
    for (char *line = strtok_r((char *)text.ptr, "\n", &save);
         line && set.count < CGROUP_GROUPS_MAX; line = strtok_r(NULL, "\n", &save))
        if (named_after(line, run))
            set.path[set.count++] = xstrdup(line);
    if (cgroup_remove(&set, &err) < 0)
        log_warn("sandbox", "could not remove what a killed sandbox left",
                 kv_str("reason", err.msg));
}

/* One entry of runs/: removed when its lock is free, since a live owner holds it. */
static void sweep_one(const char *runs, const char *name, const struct idmap *map)
{
    AUTO_FREE char *path = xasprintf("%s/%s", runs, name);
    AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct error err = {0};

    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return;
    log_debug("sandbox", "clearing away what a killed sandbox left", kv_str("run", name));
    remove_noted_groups(fd, name);
    if (clear(fd, path, map, &err) < 0)
        log_warn("sandbox", "could not remove what a killed sandbox left",
                 kv_str("reason", err.msg));
}

static void sweep(const char *runs, const struct idmap *map)
{
    DIR *d = opendir(runs);
    struct dirent *e;

    if (!d)
        return;
    while ((e = readdir(d)) != NULL)
        if (e->d_name[0] != '.')
            sweep_one(runs, e->d_name, map);
    closedir(d);
}

/* One try; 0 when another process's sweep saw the directory before it was locked. */
static int try_make_locked(const char *runs, struct sandbox_run *out, struct error *err)
{
    struct stat st;
    uint32_t r;

    if (getrandom(&r, sizeof(r), 0) != sizeof(r))
        return error_sys(err, errno, "reading random bytes");
    free(out->name);
    free(out->path);
    out->name = xasprintf("capsule-%d-%08x", (int)getpid(), (unsigned int)r);
    out->path = xasprintf("%s/%s", runs, out->name);
    if (mkdir(out->path, 0700) < 0)
        return errno == EEXIST ? 0 : error_sys(err, errno, "making %s", out->path);
    out->lock_fd = open(out->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (out->lock_fd >= 0 && flock(out->lock_fd, LOCK_EX | LOCK_NB) == 0 &&
        fstat(out->lock_fd, &st) == 0 && st.st_nlink > 0)
        return 1;
    fd_close(&out->lock_fd);
    return 0;
}

static int make_locked(const char *runs, struct sandbox_run *out, struct error *err)
{
    for (int i = 0; i < 8; i++) {
        int rc = try_make_locked(runs, out, err);

        if (rc != 0)
            return rc < 0 ? -1 : 0;
    }
    return error_set(err, ERR_IO, "cannot lock a new directory in %s", runs);
}

int sandbox_run_make(const char *cache, const struct idmap *map, struct sandbox_run *out,
                     struct error *err)
{
    AUTO_FREE char *runs = xasprintf("%s/runs", cache);

    *out = SANDBOX_RUN_NONE;
    out->map = *map;
    if (mkdir(runs, 0700) < 0 && errno != EEXIST)
        return error_sys(err, errno, "making %s", runs);
    sweep(runs, map);
    if (make_locked(runs, out, err) == 0 && make_inside(out->lock_fd, map, err) == 0)
        return 0;
    sandbox_run_remove(out, NULL);
    return -1;
}

int sandbox_sweep(struct error *err)
{
    AUTO_FREE char *cache = NULL, *runs = NULL;
    struct idmap map;
    char why[256];

    if (sandbox_cache_dir(&cache, err) < 0 || idmap_choose(&map, why, sizeof(why), err) < 0)
        return -1;
    runs = xasprintf("%s/runs", cache);
    sweep(runs, &map);
    return 0;
}

int sandbox_run_note(const struct sandbox_run *run, const struct cgroup_set *set, struct error *err)
{
    AUTO_BUF struct buf text = BUF(65536);
    AUTO_FD int fd = -1;

    for (unsigned int i = 0; i < set->count; i++)
        if (buf_printf(&text, "%s\n", set->path[i]) < 0)
            return error_set(err, ERR_LIMIT, "control group names are too long");
    fd =
        openat(run->lock_fd, "cgroups", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_sys(err, errno, "creating %s/cgroups", run->path);
    return fd_write_all(fd, text.ptr, text.len, "the list of control groups", err);
}

int sandbox_run_remove(struct sandbox_run *run, struct error *err)
{
    int rc = 0;

    if (run->lock_fd >= 0)
        rc = clear(run->lock_fd, run->path, &run->map, err);
    fd_close(&run->lock_fd);
    free(run->path);
    free(run->name);
    *run = SANDBOX_RUN_NONE;
    return rc;
}
