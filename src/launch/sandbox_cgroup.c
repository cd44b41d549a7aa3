#include "launch/sandbox_cgroup.h"

#include "base/clock.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

const struct cgroup_sources cgroup_of_self = {"/proc/self/mountinfo", "/proc/self/cgroup"};

/* Is `word` one of the words of `list`, which are split by any of `seps`? */
static bool has_word(const char *list, const char *word, const char *seps)
{
    size_t len = strlen(word);

    while (*list) {
        size_t n = strcspn(list, seps);

        if (n == len && memcmp(list, word, n) == 0)
            return true;
        list += n;
        list += strspn(list, seps);
    }
    return false;
}

/* Our path in the hierarchy with the controller, or in version 2 for "". Lines ID:NAMES:PATH. */
static bool own_path(const char *file, const char *controller, char *out, size_t size)
{
    FILE *f = fopen(file, "re");
    char line[PATH_MAX + 256];
    bool found = false;

    if (!f)
        return false;
    while (!found && fgets(line, sizeof(line), f)) {
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;

        if (!path)
            continue;
        *names++ = *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        if (*controller ? has_word(names, controller, ",") : *names == '\0')
            found = snprintf(out, size, "%s", path) < (int)size;
    }
    fclose(f);
    return found;
}

/*
 * Mount point and mounted root of a hierarchy: proc(5), mountinfo. Names with escapes (\040) are
 * not resolved: such a mount is simply not found.
 */
static bool find_mount(const char *file, const char *controller, char *point, char *root,
                       size_t size)
{
    FILE *f = fopen(file, "re");
    char line[PATH_MAX * 3];
    bool found = false;

    if (!f)
        return false;
    while (!found && fgets(line, sizeof(line), f)) {
        char *at[5], *tail = strstr(line, " - "), *save = NULL;
        char *type, *opts;
        unsigned int n = 0;

        if (!tail)
            continue;
        *tail = '\0';
        for (char *w = strtok_r(line, " ", &save); w && n < 5; w = strtok_r(NULL, " ", &save))
            at[n++] = w;
        type = strtok_r(tail + 3, " ", &save);
        strtok_r(NULL, " ", &save);
        opts = strtok_r(NULL, "\n", &save);
        if (n < 5 || !type || !opts)
            continue;
        if (*controller ? strcmp(type, "cgroup") == 0 && has_word(opts, controller, ",")
                        : strcmp(type, "cgroup2") == 0)
            found = snprintf(root, size, "%s", at[3]) < (int)size &&
                    snprintf(point, size, "%s", at[4]) < (int)size;
    }
    fclose(f);
    return found;
}

/* The directory of our own group in that hierarchy, on the heap, and the length of its top. */
static char *own_dir(const struct cgroup_sources *src, const char *controller, size_t *top)
{
    char path[PATH_MAX], point[PATH_MAX], root[PATH_MAX];
    size_t n;

    if (!own_path(src->cgroup, controller, path, sizeof(path)) ||
        !find_mount(src->mountinfo, controller, point, root, sizeof(root)))
        return NULL;
    n = strcmp(root, "/") == 0 ? 0 : strlen(root);
    /* A path that is not below the mounted root, or shows as /.., is out of our reach. */
    if (strncmp(path, root, n) != 0 || (path[n] != '/' && path[n] != '\0') || strstr(path, "/.."))
        return NULL;
    *top = strlen(point);
    return xasprintf("%s%s", point, strcmp(path + n, "/") == 0 ? "" : path + n);
}

static int put(const char *dir, const char *file, const char *text)
{
    AUTO_FREE char *path = xasprintf("%s/%s", dir, file);
    AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

static int put_number(const char *dir, const char *file, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    return put(dir, file, text);
}

static bool file_has_word(const char *dir, const char *file, const char *word)
{
    AUTO_FREE char *path = xasprintf("%s/%s", dir, file);
    AUTO_BUF struct buf text = BUF(4096);

    return file_read(path, &text, NULL) == 0 && has_word(buf_cstr(&text), word, " \n");
}

/*
 * Removes groups beside ours whose launcher (its pid is in the name, see sandbox_run) is dead and
 * whose note is lost, because its cache was removed. Groups with processes stay: rmdir() refuses.
 */
static void sweep_lost(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    if (!d)
        return;
    while ((e = readdir(d)) != NULL) {
        int pid;

        if (sscanf(e->d_name, "capsule-%d-", &pid) == 1 && pid > 0 && kill(pid, 0) < 0 &&
            errno == ESRCH)
            unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
    }
    closedir(d);
}

/* Takes the path. The group exists already when the cpu and cpuacct hierarchies are one mount. */
static bool add_group(struct cgroup_set *set, char *path)
{
    for (unsigned int i = 0; i < set->count; i++) {
        if (strcmp(set->path[i], path) == 0) {
            free(path);
            return true;
        }
    }
    if (set->count == CGROUP_GROUPS_MAX || mkdir(path, 0755) < 0) {
        free(path);
        return false;
    }
    set->path[set->count++] = path;
    return true;
}

static void drop_last(struct cgroup_set *set)
{
    char *path = set->path[--set->count];

    rmdir(path);
    free(path);
}

#define CPU_PERIOD_US 100000u

static bool limit_v1(const char *dir, const char *controller, const struct cgroup_limits *limits)
{
    uint64_t bytes = (uint64_t)limits->memory_mb << 20;

    if (strcmp(controller, "memory") == 0) {
        if (put_number(dir, "memory.limit_in_bytes", bytes) < 0)
            return false;
        /* Only where swap is accounted; the enclave has none. */
        (void)put_number(dir, "memory.memsw.limit_in_bytes", bytes);
        return true;
    }
    if (strcmp(controller, "cpu") == 0)
        return put_number(dir, "cpu.cfs_period_us", CPU_PERIOD_US) == 0 &&
               put_number(dir, "cpu.cfs_quota_us", (uint64_t)limits->cpu_count * CPU_PERIOD_US) ==
                   0;
    return put_number(dir, "pids.max", CGROUP_PIDS_MAX) == 0;
}

static bool make_v1(const struct cgroup_sources *src, const char *controller, const char *name,
                    const struct cgroup_limits *limits, struct cgroup_set *out)
{
    size_t top;
    unsigned int before = out->count;
    AUTO_FREE char *dir = own_dir(src, controller, &top);
    char *path;

    if (!dir)
        return false;
    sweep_lost(dir);
    path = xasprintf("%s/%s", dir, name);
    if (!add_group(out, path))
        return false;
    if (limit_v1(out->path[out->count - 1], controller, limits))
        return true;
    if (out->count > before)
        drop_last(out);
    return false;
}

/* Does `dir` hand a controller down, if need be after being told to? */
static bool hands_down(const char *dir, const char *controller)
{
    AUTO_FREE char *word = xasprintf("+%s", controller);

    if (file_has_word(dir, "cgroup.subtree_control", controller))
        return true;
    return file_has_word(dir, "cgroup.controllers", controller) &&
           put(dir, "cgroup.subtree_control", word) == 0;
}

static void limit_v2(const char *dir, const struct cgroup_limits *limits, struct cgroup_set *out)
{
    AUTO_FREE char *cpu =
        xasprintf("%llu %u", (unsigned long long)limits->cpu_count * CPU_PERIOD_US, CPU_PERIOD_US);

    if (put_number(dir, "memory.max", (uint64_t)limits->memory_mb << 20) == 0) {
        (void)put(dir, "memory.swap.max", "0"); /* absent without swap accounting */
        out->memory = true;
    }
    out->cpu = put(dir, "cpu.max", cpu) == 0;
    out->pids = put_number(dir, "pids.max", CGROUP_PIDS_MAX) == 0;
}

/*
 * From our own group's parent upwards: a group with processes of its own, as ours is, cannot hand
 * controllers down. The top may.
 */
static void make_v2(const struct cgroup_sources *src, const char *name,
                    const struct cgroup_limits *limits, struct cgroup_set *out)
{
    size_t top;
    AUTO_FREE char *dir = own_dir(src, "", &top);

    while (dir) {
        size_t len = strlen(dir);

        if (len > top)
            *strrchr(dir, '/') = '\0';
        if (access(dir, W_OK) == 0 && hands_down(dir, "memory")) {
            sweep_lost(dir);
            (void)hands_down(dir, "cpu");
            (void)hands_down(dir, "pids");
            if (add_group(out, xasprintf("%s/%s", dir, name))) {
                limit_v2(out->path[out->count - 1], limits, out);
                if (out->memory || out->cpu || out->pids)
                    return;
                drop_last(out);
            }
        }
        if (len <= top)
            return;
    }
}

void cgroup_make(const struct cgroup_sources *src, const char *name,
                 const struct cgroup_limits *limits, struct cgroup_set *out, char *why,
                 size_t why_size)
{
    *out = (struct cgroup_set){0};
    out->memory = make_v1(src, "memory", name, limits, out);
    out->cpu = make_v1(src, "cpu", name, limits, out);
    out->pids = make_v1(src, "pids", name, limits, out);
    if (out->count == 0)
        make_v2(src, name, limits, out);
    snprintf(why, why_size, "%s%s%s%s", out->memory ? "" : " memory", out->cpu ? "" : " cpu",
             out->pids ? "" : " pids", "");
}

int cgroup_add(const struct cgroup_set *set, pid_t pid, struct error *err)
{
    for (unsigned int i = 0; i < set->count; i++)
        if (put_number(set->path[i], "cgroup.procs", (uint64_t)pid) < 0)
            return error_sys(err, errno, "moving the sandbox into control group %s", set->path[i]);
    return 0;
}

static void kill_members(const char *dir)
{
    AUTO_FREE char *path = xasprintf("%s/cgroup.procs", dir);
    FILE *f = fopen(path, "re");
    int pid;

    if (!f)
        return;
    while (fscanf(f, "%d", &pid) == 1)
        if (pid > 1)
            kill(pid, SIGKILL);
    fclose(f);
}

int cgroup_remove(struct cgroup_set *set, struct error *err)
{
    int64_t deadline = clock_mono_ms() + 2000;
    int rc = 0;

    for (unsigned int i = 0; i < set->count; i++) {
        while (rmdir(set->path[i]) < 0 && errno != ENOENT) {
            if (errno != EBUSY || clock_mono_ms() > deadline) {
                rc = error_sys(err, errno, "removing control group %s", set->path[i]);
                break;
            }
            kill_members(set->path[i]);
            poll(NULL, 0, 2);
        }
        free(set->path[i]);
    }
    *set = (struct cgroup_set){0};
    return rc;
}
