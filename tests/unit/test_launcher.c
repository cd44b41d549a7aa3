#include "unit.h"

#include "base/file.h"
#include "launch/carrier_dir.h"
#include "launch/idmap.h"
#include "launch/launcher.h"
#include "launch/nitro_device.h"
#include "launch/nitro_host.h"
#include "launch/sandbox_cgroup.h"
#include "launch/sandbox_console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* ---- a directory for each test ---- */

struct place {
    char dir[64];
};

static int setup(void **state)
{
    struct place *p = xcalloc(1, sizeof(*p));

    snprintf(p->dir, sizeof(p->dir), "/tmp/cl-XXXXXX");
    *state = p;
    return mkdtemp(p->dir) ? 0 : -1;
}

static int teardown(void **state)
{
    struct place *p = *state;
    int rc = tree_remove(p->dir, NULL);

    free(p);
    return rc;
}

static char *put(const struct place *p, const char *name, const char *text)
{
    char *path = xasprintf("%s/%s", p->dir, name);
    struct error err = {0};

    assert_ok(file_write_atomic(path, slice_str(text), 0644, &err));
    return path;
}

static char *get(const struct place *p, const char *name)
{
    AUTO_FREE char *path = xasprintf("%s/%s", p->dir, name);
    AUTO_BUF struct buf text = BUF(4096);

    if (file_read(path, &text, NULL) < 0)
        return xstrdup("(none)");
    return xstrdup(buf_cstr(&text));
}

static void make_dir(const struct place *p, const char *name)
{
    AUTO_FREE char *path = xasprintf("%s/%s", p->dir, name);
    struct error err = {0};

    assert_ok(dir_make_all(path, 0755, &err));
}

/* ---- launchers ---- */

static void test_cpu_lists(void **state)
{
    static const struct {
        const char *text;
        int rc;
        unsigned int count, first;
    } cases[] = {{"", 0, 0, 0},     {"0", 0, 1, 0},        {"2,3,6-9", 0, 6, 2}, {"4-4", 0, 1, 4},
                 {"2,", -1, 0, 0},  {"2,,3", -1, 0, 0},    {"-3", -1, 0, 0},     {"3-", -1, 0, 0},
                 {"5-2", -1, 0, 0}, {"1-65536", -1, 0, 0}, {"1-2-3", -1, 0, 0},  {" 1", -1, 0, 0}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        unsigned int count, first;

        assert_int_equal(nitro_cpu_list(slice_str(cases[i].text), &count, &first), cases[i].rc);
        if (cases[i].rc == 0) {
            assert_int_equal(count, cases[i].count);
            assert_int_equal(first, cases[i].first);
        }
    }
}

static void test_driver_errors_are_sentences(void **state)
{
    (void)state;
    for (int sys = 256; sys <= 275; sys++) {
        struct error err = {0};

        nitro_error(&err, sys, "x");
        assert_int_equal(err.sys, sys);
        assert_null(strstr(err.msg, "nknown"));
    }
}

static void test_launchers_by_name(void **state)
{
    AUTO_FREE char *path = xstrdup(getenv("PATH"));
    struct error err = {0};
    const struct launcher_ops *l = launcher_find("sandbox", &err);

    (void)state;
    assert_non_null(l);
    assert_false(l->confidential);
    assert_true(l->uses_unix_carrier());
    assert_null(launcher_find("docker", &err));
    assert_int_equal(err.kind, ERR_USAGE);
    assert_string_equal(err.msg, "docker: no such launcher; there are auto, nitro, nitro-cli, "
                                 "qemu, sandbox");
    setenv("PATH", "/nowhere", 1);
    assert_null(launcher_choose("nitro-cli", &err));
    setenv("PATH", path, 1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_string_equal(err.msg, "launcher nitro-cli: nitro-cli is not installed");
}

/* ---- identities ---- */

struct files {
    char *subuid, *subgid, *passwd, *full, *narrow;
};

static struct files make_files(const struct place *p, const char *sub)
{
    return (struct files){
        put(p, "subuid", sub), put(p, "subgid", sub),
        put(p, "passwd", "root:x:0:0::/:\nann:x:1000:1000::/:\nbob:x:1001:1::/:\n"),
        put(p, "full", "         0          0 4294967295\n"),
        put(p, "narrow", "         0       1000          1\n")};
}

static void free_files(struct files *f)
{
    free(f->subuid);
    free(f->subgid);
    free(f->passwd);
    free(f->full);
    free(f->narrow);
}

static struct idmap choose(const struct files *f, const char *own, const char *helper, uid_t uid,
                           char why[256])
{
    const struct idmap_sources src = {f->subuid, f->subgid, f->passwd, own, own, helper, helper};
    struct idmap m;

    idmap_choose_from(&src, uid, uid, &m, why, 256);
    return m;
}

static void test_root_gets_ids_of_nobody(void **state)
{
    CLEANUP(free_files) struct files f = make_files(*state, "");
    char why[256];
    struct idmap m = choose(&f, f.full, "/bin/sh", 0, why);

    assert_false(m.single);
    assert_false(m.by_helper);
    assert_int_equal(m.root_uid, IDMAP_ROOT_BASE);
    assert_int_equal(m.uid[0].count, 65536);
    assert_string_equal(why, "");
    /* Root of a container whose map does not reach that far. */
    m = choose(&f, f.narrow, "/bin/sh", 0, why);
    assert_true(m.single);
    assert_true(m.deny_setgroups);
    assert_int_equal(m.root_uid, 0);
    assert_non_null(strstr(why, "user namespace"));
}

static void test_user_gets_the_subordinate_range(void **state)
{
    CLEANUP(free_files)
    struct files f = make_files(*state, "bob:1:2\n# ann:5:6\nann:100000:65536\n1001:300000:2000\n");
    char why[256];
    struct idmap m = choose(&f, f.full, "/bin/sh", 1000, why);

    assert_true(m.by_helper);
    assert_int_equal(m.extents, 2);
    assert_int_equal(m.uid[0].outside, 1000);
    assert_int_equal(m.uid[1].inside, 1);
    assert_int_equal(m.uid[1].outside, 100000);
    assert_int_equal(m.uid[1].count, 65535);
    assert_int_equal(m.root_uid, 1000);
    /* By number; a range that is too small to be of use is passed over. */
    m = choose(&f, f.full, "/bin/sh", 1001, why);
    assert_int_equal(m.uid[1].outside, 300000);
    assert_int_equal(m.uid[1].count, 2000);
}

static void test_user_without_range_gets_one_id(void **state)
{
    static const char *const bad[] = {"",
                                      "ann:100000\n",
                                      "ann:x:65536\n",
                                      "ann:0:65536\n",
                                      "ann:4294967000:65536\n",
                                      "anna:100000:65536\n",
                                      ":100000:65536\n"};
    char why[256];
    struct idmap m;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CLEANUP(free_files) struct files f = make_files(*state, bad[i]);

        m = choose(&f, f.full, "/bin/sh", 1000, why);
        assert_true(m.single);
        assert_int_equal(m.extents, 1);
        assert_non_null(strstr(why, "no range for this user"));
    }
    {
        CLEANUP(free_files) struct files f = make_files(*state, "ann:100000:65536\n");

        m = choose(&f, f.full, "/no/newuidmap", 1000, why);
        assert_true(m.single);
        assert_non_null(strstr(why, "package uidmap"));
    }
}

static int inside(void *arg, struct error *err)
{
    const int *mode = arg;

    if (*mode == 1)
        return error_set(err, ERR_LIMIT, "no more of it");
    if (*mode == 2)
        _exit(9);
    return getuid() == 0 ? 0 : error_set(err, ERR_INTERNAL, "uid is %d", (int)getuid());
}

static void test_work_in_a_user_namespace(void **state)
{
    struct error err = {0};
    struct idmap m;
    int mode = 0;

    (void)state;
    assert_ok(idmap_choose(&m, NULL, 0, &err));
    if (idmap_call(&m, inside, &mode, &err) < 0) {
        /* A machine that forbids it says so with a way out. */
        assert_string_not_equal(err.hint, "");
        return;
    }
    mode = 1;
    assert_int_equal(idmap_call(&m, inside, &mode, &err), -1);
    assert_string_equal(err.msg, "no more of it");
    mode = 2;
    assert_int_equal(idmap_call(&m, inside, &mode, &err), -1);
    assert_string_equal(err.msg, "the helper process in the user namespace died");
}

/* ---- control groups, on directories that look like the kernel's ---- */

static const struct cgroup_limits limits = {256, 2};

static void test_cgroups_of_version_1(void **state)
{
    const struct place *p = *state;
    AUTO_FREE char *mounts = NULL, *own = NULL, *limit = NULL;
    char text[512], why[64];
    struct cgroup_set set;

    make_dir(p, "memory/a/b");
    make_dir(p, "pids");
    snprintf(text, sizeof(text),
             "30 1 0:5 / %s/memory rw - cgroup cgroup rw,memory\n"
             "31 1 0:6 /far/away %s/cpu rw - cgroup cgroup rw,cpu\n"
             "32 1 0:7 / %s/pids rw - cgroup cgroup rw,pids\n",
             p->dir, p->dir, p->dir);
    mounts = put(p, "mountinfo", text);
    own = put(p, "cgroup", "9:memory:/a/b\n8:cpu,cpuacct:/x\n7:pids:/../out\n0::/\n");
    /* No kernel makes the files here, so no limit holds and nothing stays. */
    cgroup_make(&(struct cgroup_sources){mounts, own}, "capsule-1", &limits, &set, why,
                sizeof(why));
    assert_int_equal(set.count, 0);
    assert_string_equal(why, " memory cpu pids");
    limit = xasprintf("%s/memory/a/b/capsule-1", p->dir);
    assert_int_equal(access(limit, F_OK), -1);
}

static void test_cgroups_of_version_2(void **state)
{
    const struct place *p = *state;
    AUTO_FREE char *mounts = NULL, *own = NULL, *group = NULL;
    char text[512], why[64];
    struct cgroup_set set;
    struct error err = {0};

    /* Our own group is user/session; `user` hands memory and pids down and can do cpu. */
    make_dir(p, "cg/user/session");
    free(put(p, "cg/user/cgroup.subtree_control", "memory pids\n"));
    free(put(p, "cg/user/cgroup.controllers", "cpu memory pids\n"));
    snprintf(text, sizeof(text), "30 1 0:5 / %s/cg rw - cgroup2 cgroup2 rw\n", p->dir);
    mounts = put(p, "mountinfo", text);
    own = put(p, "cgroup", "0::/user/session\n");
    cgroup_make(&(struct cgroup_sources){mounts, own}, "capsule-2", &limits, &set, why,
                sizeof(why));
    /* Again no kernel: the group is tried in the right place and taken back. */
    group = xasprintf("%s/cg/user/capsule-2", p->dir);
    assert_int_equal(access(group, F_OK), -1);
    assert_int_equal(set.count, 0);
    {
        AUTO_FREE char *control = get(p, "cg/user/cgroup.subtree_control");

        /* cpu was asked for; a plain file keeps what was written last. */
        assert_non_null(strstr(control, "+cpu"));
    }
    assert_ok(cgroup_remove(&set, &err));
}

static void test_cgroups_of_this_machine(void **state)
{
    struct cgroup_set set;
    struct error err = {0};
    char why[64], name[64];

    (void)state;
    snprintf(name, sizeof(name), "capsule-unit-%d", (int)getpid());
    cgroup_make(&cgroup_of_self, name, &limits, &set, why, sizeof(why));
    for (unsigned int i = 0; i < set.count; i++)
        assert_int_equal(access(set.path[i], F_OK), 0);
    assert_ok(cgroup_remove(&set, &err));
    assert_int_equal(set.count, 0);
}

/* ---- carrier directories ---- */

static void test_carrier_dir(void **state)
{
    const struct place *p = *state;
    CLEANUP(carrier_dir_remove) struct carrier_dir a = CARRIER_DIR_NONE, b = CARRIER_DIR_NONE;
    AUTO_FREE char *dead = NULL, *socket = NULL, *path = NULL;
    struct error err = {0};
    struct stat st;

    setenv("XDG_RUNTIME_DIR", p->dir, 1);
    /* What a killed process left: a lock that nobody holds. */
    make_dir(p, "capsule/c-00000000");
    dead = xasprintf("%s/capsule", p->dir);
    assert_int_equal(chmod(dead, 0700), 0);
    free(put(p, "capsule/c-00000000.lock", ""));
    free(put(p, "capsule/c-00000000/v.sock", ""));

    assert_ok(carrier_dir_make(&a, &err));
    assert_ok(carrier_dir_make(&b, &err));
    assert_string_not_equal(a.path, b.path);
    assert_true(strlen(a.path) <= 64);
    assert_int_equal(strncmp(a.path, p->dir, strlen(p->dir)), 0);
    assert_int_equal(stat(a.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    socket = xasprintf("%s/capsule/c-00000000", p->dir);
    assert_int_equal(access(socket, F_OK), -1);

    path = xstrdup(a.path);
    carrier_dir_remove(&a);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access(b.path, F_OK), 0);
    unsetenv("XDG_RUNTIME_DIR");
}

static void test_carrier_dir_shuns_open_places(void **state)
{
    const struct place *p = *state;
    CLEANUP(carrier_dir_remove) struct carrier_dir d = CARRIER_DIR_NONE;
    AUTO_FREE char *open_dir = xasprintf("%s/capsule", p->dir);
    struct error err = {0};

    make_dir(p, "capsule");
    assert_int_equal(chmod(open_dir, 0777), 0);
    setenv("XDG_RUNTIME_DIR", p->dir, 1);
    assert_ok(carrier_dir_make(&d, &err));
    assert_int_not_equal(strncmp(d.path, p->dir, strlen(p->dir)), 0);
    unsetenv("XDG_RUNTIME_DIR");
}

/* ---- console ---- */

static void test_console_lines(void **state)
{
    const struct place *p = *state;
    struct console c = CONSOLE_NONE;
    struct error err = {0};
    AUTO_FREE char *log = put(p, "log", ""), *text = NULL;
    char longer[3000];
    int to = open(log, O_WRONLY), fd;

    log_set_fd(to);
    fd = console_open(&c, &err);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "one\ntw", 6), 6);
    assert_true(console_pump(&c));
    assert_int_equal(write(fd, "o\n\x1b[31m\0x\n", 10), 10);
    memset(longer, 'a', sizeof(longer));
    assert_int_equal(write(fd, longer, sizeof(longer)), sizeof(longer));
    close(fd);
    while (console_pump(&c))
        ;
    console_close(&c);
    log_set_fd(STDERR_FILENO);
    close(to);
    text = get(p, "log");
    assert_non_null(strstr(text, "info console: one\ninfo console: two\n"));
    assert_null(strchr(text, '\x1b'));
    assert_non_null(strstr(text, "console: aaaa"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu_lists),
        cmocka_unit_test(test_driver_errors_are_sentences),
        cmocka_unit_test(test_launchers_by_name),
        cmocka_unit_test_setup_teardown(test_root_gets_ids_of_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_user_gets_the_subordinate_range, setup, teardown),
        cmocka_unit_test_setup_teardown(test_user_without_range_gets_one_id, setup, teardown),
        cmocka_unit_test(test_work_in_a_user_namespace),
        cmocka_unit_test_setup_teardown(test_cgroups_of_version_1, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cgroups_of_version_2, setup, teardown),
        cmocka_unit_test(test_cgroups_of_this_machine),
        cmocka_unit_test_setup_teardown(test_carrier_dir, setup, teardown),
        cmocka_unit_test_setup_teardown(test_carrier_dir_shuns_open_places, setup, teardown),
        cmocka_unit_test_setup_teardown(test_console_lines, setup, teardown),
    };

    return cmocka_run_group_tests_name("launcher", tests, NULL, NULL);
}
