#include "launch/idmap.h"

#include "base/file.h"
#include "base/proc.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Splits off the text up to `stop` (or the end) and moves on behind it. */
static struct slice token(struct slice *rest, char stop)
{
    const uint8_t *at = rest->len ? memchr(rest->ptr, stop, rest->len) : NULL;
    struct slice t = slice_of(rest->ptr, at ? (size_t)(at - rest->ptr) : rest->len);
    size_t used = t.len + (at ? 1 : 0);

    rest->ptr += used;
    rest->len -= used;
    return t;
}

/* The account name of a uid, from /etc/passwd alone: programs that link this are static. */
static struct slice account_name(struct slice passwd, uid_t uid)
{
    while (passwd.len) {
        struct slice line = token(&passwd, '\n'), name = token(&line, ':');
        uint64_t id;

        token(&line, ':');
        if (parse_u64(token(&line, ':'), UINT32_MAX, &id) == 0 && id == uid && name.len)
            return name;
    }
    return slice_of(NULL, 0);
}

/* The first usable range of a subordinate id file (subuid(5)): lines NAME-OR-UID:FIRST:COUNT. */
static bool sub_range(const char *path, struct slice name, uid_t uid, struct idmap_extent *out)
{
    AUTO_BUF struct buf text = BUF(1 << 20);
    char digits[16];
    struct slice rest;

    if (file_read(path, &text, NULL) < 0)
        return false;
    snprintf(digits, sizeof(digits), "%u", (unsigned int)uid);
    rest = buf_slice(&text);
    while (rest.len) {
        struct slice line = token(&rest, '\n'), who = token(&line, ':');
        uint64_t first, count;

        if (!slice_equal_str(who, digits) && !(name.len && slice_equal(who, name)))
            continue;
        if (parse_u64(token(&line, ':'), UINT32_MAX, &first) < 0 ||
            parse_u64(token(&line, ':'), UINT32_MAX, &count) < 0)
            continue;
        if (first == 0 || count < 1000 || first + count > UINT32_MAX)
            continue;
        *out = (struct idmap_extent){1, (uint32_t)first, count > 65535 ? 65535 : (uint32_t)count};
        return true;
    }
    return false;
}

/* Does our own user namespace (lines INSIDE OUTSIDE COUNT, padded) have all of these ids? */
static bool own_map_covers(const char *path, uint32_t first, uint32_t count)
{
    FILE *f = fopen(path, "re");
    unsigned long inside, outside, n;
    bool found = false;

    if (!f)
        return false;
    while (!found && fscanf(f, "%lu %lu %lu", &inside, &outside, &n) == 3)
        found = first >= inside && (uint64_t)first + count <= (uint64_t)inside + n;
    fclose(f);
    return found;
}

static bool in_path(const char *program)
{
    AUTO_FREE char *found = proc_find(program);

    return found != NULL;
}

static void single(struct idmap *out, uid_t uid, gid_t gid)
{
    out->uid[0] = (struct idmap_extent){0, uid, 1};
    out->gid[0] = (struct idmap_extent){0, gid, 1};
    out->extents = 1;
    out->single = true;
    out->deny_setgroups = true;
    out->root_uid = uid;
    out->root_gid = gid;
    snprintf(out->tag, sizeof(out->tag), "s%u", (unsigned int)uid);
}

static void choose_root(const struct idmap_sources *src, struct idmap *out, char *why, size_t size)
{
    if (!own_map_covers(src->own_uid_map, IDMAP_ROOT_BASE, IDMAP_ROOT_COUNT) ||
        !own_map_covers(src->own_gid_map, IDMAP_ROOT_BASE, IDMAP_ROOT_COUNT)) {
        single(out, 0, 0);
        snprintf(why, size, "this process is in a user namespace without ids %u to %u",
                 IDMAP_ROOT_BASE, IDMAP_ROOT_BASE + IDMAP_ROOT_COUNT - 1);
        return;
    }
    out->uid[0] = out->gid[0] = (struct idmap_extent){0, IDMAP_ROOT_BASE, IDMAP_ROOT_COUNT};
    out->extents = 1;
    out->root_uid = out->root_gid = IDMAP_ROOT_BASE;
    snprintf(out->tag, sizeof(out->tag), "r%u", IDMAP_ROOT_BASE);
}

void idmap_choose_from(const struct idmap_sources *src, uid_t uid, gid_t gid, struct idmap *out,
                       char *why_single, size_t why_size)
{
    AUTO_BUF struct buf passwd = BUF(1 << 22);
    struct slice name = {0};

    *out = (struct idmap){0};
    if (why_size)
        why_single[0] = '\0';
    if (uid == 0) {
        choose_root(src, out, why_single, why_size);
        return;
    }
    if (file_read(src->passwd, &passwd, NULL) == 0)
        name = account_name(buf_slice(&passwd), uid);
    single(out, uid, gid);
    if (!sub_range(src->subuid, name, uid, &out->uid[1]) ||
        !sub_range(src->subgid, name, uid, &out->gid[1])) {
        snprintf(why_single, why_size, "%s and %s have no range for this user", src->subuid,
                 src->subgid);
    } else if (!in_path(src->newuidmap) || !in_path(src->newgidmap)) {
        snprintf(why_single, why_size, "newuidmap and newgidmap (package uidmap) are missing");
    } else if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0) {
        snprintf(why_single, why_size, "no_new_privs is set, so newuidmap cannot work");
    } else {
        out->extents = 2;
        out->by_helper = true;
        out->single = false;
        out->deny_setgroups = false;
        snprintf(out->tag, sizeof(out->tag), "u%u.%u", (unsigned int)uid, out->uid[1].outside);
    }
}

static const struct idmap_sources machine = {
    "/etc/subuid",        "/etc/subgid", "/etc/passwd", "/proc/self/uid_map",
    "/proc/self/gid_map", "newuidmap",   "newgidmap",
};

int idmap_choose(struct idmap *out, char *why_single, size_t why_size, struct error *err)
{
    if (access("/proc/self/ns/user", F_OK) < 0) {
        error_set(err, ERR_UNSUPPORTED, "this kernel has no user namespaces");
        return error_hint(err, "the sandbox needs a kernel with CONFIG_USER_NS and /proc mounted");
    }
    idmap_choose_from(&machine, geteuid(), getegid(), out, why_single, why_size);
    return 0;
}

static int write_proc(pid_t pid, const char *file, const char *text, struct error *err)
{
    AUTO_FREE char *path = xasprintf("/proc/%d/%s", (int)pid, file);
    AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));

    if (n == (ssize_t)strlen(text))
        return 0;
    error_sys(err, n < 0 ? errno : EIO, "setting %s of the sandbox's user namespace", file);
    return idmap_hint(err, EPERM);
}

static int write_map(pid_t pid, const char *file, const struct idmap_extent *e, unsigned int n,
                     struct error *err)
{
    AUTO_BUF struct buf text = BUF(256);

    for (unsigned int i = 0; i < n; i++)
        if (buf_printf(&text, "%u %u %u\n", e[i].inside, e[i].outside, e[i].count) < 0)
            return error_set(err, ERR_INTERNAL, "an id map is too long");
    return write_proc(pid, file, buf_cstr(&text), err);
}

static int run_helper(const char *program, pid_t pid, const struct idmap_extent *e, unsigned int n,
                      struct error *err)
{
    char words[1 + 3 * 2][16];
    const char *argv[2 + 3 * 2 + 1] = {program, words[0]};
    unsigned int used = 1;

    snprintf(words[0], sizeof(words[0]), "%d", (int)pid);
    for (unsigned int i = 0; i < n; i++) {
        const uint32_t v[3] = {e[i].inside, e[i].outside, e[i].count};

        for (unsigned int k = 0; k < 3; k++, used++) {
            snprintf(words[used], sizeof(words[used]), "%u", v[k]);
            argv[used + 1] = words[used];
        }
    }
    if (proc_run(argv, 10000, NULL, err) == 0)
        return 0;
    return error_hint(err, "check this user's lines in /etc/subuid and /etc/subgid; without them "
                           "the sandbox runs with one id");
}

int idmap_apply(const struct idmap *map, pid_t pid, struct error *err)
{
    if (map->by_helper) {
        if (run_helper(machine.newuidmap, pid, map->uid, map->extents, err) < 0)
            return -1;
        return run_helper(machine.newgidmap, pid, map->gid, map->extents, err);
    }
    if (map->deny_setgroups && write_proc(pid, "setgroups", "deny", err) < 0)
        return -1;
    if (write_map(pid, "uid_map", map->uid, map->extents, err) < 0)
        return -1;
    return write_map(pid, "gid_map", map->gid, map->extents, err);
}

/*
 * Straight to the kernel: the C library's functions make all threads change, by its list of them,
 * which after clone3() still names the parent's; they would wait for these for ever.
 */
int idmap_enter(const struct idmap *map, struct error *err)
{
    if (!map->deny_setgroups && syscall(SYS_setgroups, 0, NULL) < 0)
        return error_sys(err, errno, "dropping supplementary groups in the sandbox");
    if (syscall(SYS_setresgid, 0, 0, 0) < 0)
        return error_sys(err, errno, "becoming group 0 of the sandbox");
    if (syscall(SYS_setresuid, 0, 0, 0) < 0)
        return error_sys(err, errno, "becoming user 0 of the sandbox");
    return 0;
}

/* What the forked process says: a step is done (kind ERR_NONE), or what failed. */
static void say(int fd, const struct error *e)
{
    while (send(fd, e, sizeof(*e), MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

static bool hear(int fd, struct error *e)
{
    ssize_t n;

    do
        n = recv(fd, e, sizeof(*e), 0);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(*e);
}

static _Noreturn void inside(const struct idmap *map, int fd, int (*fn)(void *, struct error *),
                             void *arg)
{
    struct error e = {0}, go;

    proc_reset_signals();
    if (unshare(CLONE_NEWUSER) < 0) {
        int sys = errno;

        error_sys(&e, sys, "making a user namespace");
        idmap_hint(&e, sys);
        say(fd, &e);
        _exit(1);
    }
    say(fd, &e);
    if (!hear(fd, &go))
        _exit(1);
    if (idmap_enter(map, &e) < 0) {
        say(fd, &e);
        _exit(1);
    }
    /* Changing identity clears this setting, so it comes after; the answer proves the parent lives.
     */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    say(fd, &e);
    if (!hear(fd, &go))
        _exit(1);
    if (fn(arg, &e) < 0 && e.kind == ERR_NONE)
        error_set(&e, ERR_INTERNAL, "work in the user namespace failed without a reason");
    say(fd, &e);
    _exit(0);
}

/* Waits for one word of the child; its error becomes ours. */
static int step(int fd, struct error *err)
{
    struct error e;

    if (!hear(fd, &e))
        return error_set(err, ERR_INTERNAL, "the helper process in the user namespace died");
    if (e.kind == ERR_NONE)
        return 0;
    if (err)
        *err = e;
    return -1;
}

int idmap_call(const struct idmap *map, int (*fn)(void *arg, struct error *err), void *arg,
               struct error *err)
{
    static const struct error go = {0};
    int pair[2], rc;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_sys(err, errno, "making a socket pair");
    pid = fork();
    if (pid < 0) {
        error_sys(err, errno, "starting a helper process");
        fd_close(&pair[0]);
        fd_close(&pair[1]);
        return -1;
    }
    if (pid == 0) {
        close(pair[0]);
        inside(map, pair[1], fn, arg);
    }
    fd_close(&pair[1]);
    rc = step(pair[0], err);
    if (rc == 0)
        rc = idmap_apply(map, pid, err);
    for (int i = 0; rc == 0 && i < 2; i++) {
        say(pair[0], &go);
        rc = step(pair[0], err);
    }
    fd_close(&pair[0]);
    if (rc < 0)
        kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return rc;
}

static int remove_inside(void *arg, struct error *err)
{
    return tree_remove(arg, err);
}

int idmap_tree_remove(const struct idmap *map, const char *path, struct error *err)
{
    if (!map->by_helper)
        return tree_remove(path, err);
    return idmap_call(map, remove_inside, (void *)(uintptr_t)path, err);
}

static bool sysctl_is(const char *path, char value)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    char c[2] = {0};

    return fd >= 0 && read(fd, c, sizeof(c)) > 0 && c[0] == value && (c[1] == '\n' || c[1] == '\0');
}

int idmap_hint(struct error *err, int sys)
{
    if (sysctl_is("/proc/sys/user/max_user_namespaces", '0'))
        return error_hint(err, "user namespaces are turned off: sysctl -w "
                               "user.max_user_namespaces=10000 (as root)");
    if (sysctl_is("/proc/sys/kernel/unprivileged_userns_clone", '0') && geteuid() != 0)
        return error_hint(err, "user namespaces are for root only here: sysctl -w "
                               "kernel.unprivileged_userns_clone=1 (as root), or run as root");
    if (sysctl_is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", '1') && geteuid() != 0)
        return error_hint(err, "AppArmor restricts user namespaces here: sysctl -w "
                               "kernel.apparmor_restrict_unprivileged_userns=0 (as root), or run "
                               "as root");
    if (sys == ENOSPC || sys == EUSERS)
        return error_hint(err,
                          "a limit on namespaces is reached: see the sysctls under user.max_*");
    if (sys == EPERM || sys == EACCES)
        return error_hint(err, "a container or a security module forbids it: run outside of the "
                               "container, or allow it unshare, mount and clone with user "
                               "namespaces");
    return -1;
}
