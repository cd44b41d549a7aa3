#include "eif_vectors.h"

#include "eif/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* A directory to unpack into, beside one that must never change. */
struct place {
    char dir[32];
    int in;  /* DIR/in */
    int out; /* DIR/out, with the file "secret" */
};

static void place_set_up(struct place *p)
{
    AUTO_FD int dir = -1;
    AUTO_FD int fd = -1;

    strcpy(p->dir, "/tmp/capsule-test.XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    dir = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(dir, "in", 0755) | mkdirat(dir, "out", 0755), 0);
    p->in = openat(dir, "in", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    p->out = openat(dir, "out", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fd = openat(p->out, "secret", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "safe", 4), 4);
}

static void place_tear_down(struct place *p)
{
    struct error err;

    close(p->in);
    close(p->out);
    assert_ok(tree_remove(p->dir, &err));
}
#define AUTO_PLACE CLEANUP(place_tear_down)

static void assert_content(int dir, const char *path, const char *want)
{
    AUTO_FD int fd = openat(dir, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    AUTO_BUF struct buf got = BUF(1 << 16);
    struct error err;

    if (fd < 0)
        fail_msg("%s is missing", path);
    assert_ok(fd_read_all(fd, &got, path, &err));
    assert_string_equal(buf_cstr(&got), want);
}

static struct stat stat_of(int dir, const char *path)
{
    struct stat st = {0};

    if (fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        fail_msg("%s is missing", path);
    return st;
}

static bool exists(int dir, const char *path)
{
    return faccessat(dir, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void assert_outside_untouched(const struct place *p)
{
    struct stat st = stat_of(p->out, "secret");

    assert_content(p->out, "secret", "safe");
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_nlink, 1);
    assert_false(exists(p->out, "new"));
}

/* ---- archives that the writer would not write ---- */

struct raw {
    const char *name;
    uint32_t mode;
    const char *data;
    uint32_t ino, nlink;
};

static void put_raw(struct buf *b, const struct raw *e)
{
    size_t size = e->data ? strlen(e->data) : 0;

    assert_int_equal(buf_printf(b, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x",
                                e->ino, e->mode, getuid(), getgid(), e->nlink ? e->nlink : 1, 1000,
                                size, 0, 0, 1, 3, strlen(e->name) + 1, 0),
                     0);
    assert_int_equal(buf_append(b, e->name, strlen(e->name) + 1), 0);
    while (b->len % 4)
        assert_int_equal(buf_append_byte(b, 0), 0);
    assert_int_equal(buf_append(b, e->data, size), 0);
    while (b->len % 4)
        assert_int_equal(buf_append_byte(b, 0), 0);
}

static ssize_t from_slice(void *arg, uint8_t *ptr, size_t len, struct error *err)
{
    struct slice *s = arg;

    (void)err;
    if (len > s->len)
        len = s->len;
    if (len)
        memcpy(ptr, s->ptr, len);
    s->ptr += len;
    s->len -= len;
    return (ssize_t)len;
}

static int unpack_raw(struct place *p, const struct raw *entries, const struct unpack_options *o,
                      struct unpack_result *result, struct error *err)
{
    AUTO_CPIO_READER struct cpio_reader *r = NULL;
    AUTO_BUF struct buf b = BUF(1 << 16);
    struct unpack_source source;
    struct slice s;

    for (; entries->name; entries++)
        put_raw(&b, entries);
    put_raw(&b, &(struct raw){"TRAILER!!!", 0, NULL, 0, 1});
    s = buf_slice(&b);
    r = cpio_reader_new(from_slice, &s);
    source = unpack_from_cpio(r);
    return unpack_archive(&source, p->in, o, result, err);
}

/* ---- the image of the vectors ---- */

static void test_app_ramdisk(void **state)
{
    json_t *root = vectors_load("eif.json");
    bool is_root = geteuid() == 0;
    struct unpack_options options = {.prefix = "rootfs/", .owners = is_root, .devices = is_root};
    AUTO_BUF struct buf bytes = {0};
    AUTO_FD int fd =
        file_of(vectors_base64(image_named(root, "unsigned-x86_64"), "eif_base64", &bytes));
    AUTO_PLACE struct place p;
    char target[16] = "";
    struct error err;
    struct stat st;

    (void)state;
    place_set_up(&p);
    assert_ok(eif_unpack_ramdisk(fd, 1, p.in, &options, &err));
    assert_content(p.in, "bin/app",
                   "\x7f"
                   "ELF placeholder");
    assert_int_equal(stat_of(p.in, "bin/app").st_mode, S_IFREG | 0755);
    assert_int_equal(readlinkat(p.in, "bin/app-link", target, sizeof(target)), 3);
    assert_string_equal(target, "app");
    assert_int_equal(stat_of(p.in, "bin/hard1").st_ino, stat_of(p.in, "bin/hard2").st_ino);
    assert_content(p.in, "bin/hard2", "hard linked\n");
    st = stat_of(p.in, "etc/owned");
    assert_int_equal(st.st_mode, S_IFREG | 0600);
    assert_int_equal(st.st_mtime, 0);
    assert_int_equal(st.st_uid, is_root ? 1000 : geteuid());
    assert_int_equal(stat_of(p.in, ".").st_mode, S_IFDIR | 0755);
    assert_int_equal(stat_of(p.in, "bin").st_mtime, 0);
    assert_false(exists(p.in, "env"));
    if (is_root) {
        st = stat_of(p.in, "dev/null");
        assert_int_equal(st.st_mode, S_IFCHR | 0666);
        assert_int_equal(st.st_rdev, makedev(1, 3));
    } else {
        assert_false(exists(p.in, "dev/null"));
    }
    assert_int_equal(eif_unpack_ramdisk(fd, 2, p.in, &options, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    json_decref(root);
}

static void test_whole_ramdisk_without_devices(void **state)
{
    json_t *root = vectors_load("eif.json");
    AUTO_BUF struct buf bytes = {0};
    AUTO_CPIO_READER struct cpio_reader *r = NULL;
    struct unpack_result result;
    struct unpack_source source;
    AUTO_PLACE struct place p;
    struct error err;
    struct slice s;

    (void)state;
    s = vectors_base64(json_array_get(json_object_get(root, "cpio"), 1), "archive_base64", &bytes);
    place_set_up(&p);
    r = cpio_reader_new(from_slice, &s);
    source = unpack_from_cpio(r);
    assert_ok(unpack_archive(&source, p.in, &(struct unpack_options){0}, &result, &err));
    assert_int_equal(result.entries, 11);
    assert_int_equal(result.skipped, 1);
    assert_content(p.in, "cmd", "/bin/app\n--flag\n");
    assert_true(exists(p.in, "rootfs/bin/app"));
    assert_false(exists(p.in, "rootfs/dev/null"));
    json_decref(root);
}

/* ---- hostile archives ---- */

static void test_nothing_gets_out(void **state)
{
    static const struct {
        struct raw entries[6];
        const char *why; /* NULL: harmless, unpacks inside */
    } cases[] = {
        {{{"../out/new", S_IFREG | 0644, "x", 1, 1}}, "\"..\""},
        {{{"a/../../out/new", S_IFREG | 0644, "x", 1, 1}}, "\"..\""},
        {{{"..", S_IFDIR | 0777, NULL, 1, 1}}, "\"..\""},
        {{{"l", S_IFLNK | 0777, "../out", 1, 1}, {"l/new", S_IFREG | 0644, "x", 2, 1}},
         "symbolic link"},
        {{{"l", S_IFLNK | 0777, "../out", 1, 1}, {"l/new", S_IFDIR | 0755, NULL, 2, 1}},
         "symbolic link"},
        {{{"l", S_IFLNK | 0777, ".", 1, 1}, {"l/x/y", S_IFREG | 0644, "x", 2, 1}}, "symbolic link"},
        {{{"f", S_IFREG | 0644, "x", 1, 1}, {"f/x", S_IFREG | 0644, "x", 2, 1}}, "or a file"},
        /* a file written where a link stands replaces the link */
        {{{"l", S_IFLNK | 0777, "../out/secret", 1, 1}, {"l", S_IFREG | 0644, "x", 2, 1}}, NULL},
        {{{"l", S_IFLNK | 0777, "../out", 1, 1}, {"l", S_IFDIR | 0777, NULL, 2, 1}}, NULL},
        /* the first name's directory becomes a link before the second name comes */
        {{{"d", S_IFDIR | 0755, NULL, 1, 1},
          {"d/secret", S_IFREG | 0644, "x", 2, 2},
          {"d/secret", S_IFDIR | 0755, NULL, 3, 1},
          {"d/secret", S_IFLNK | 0777, "../../out/secret", 4, 1},
          {"again", S_IFREG | 0666, "overwritten", 2, 2}},
         "not a file|symbolic"},
        {{{"/etc/new", S_IFREG | 0644, "x", 1, 1}}, NULL},
        {{{"././/a/./new", S_IFREG | 0644, "x", 1, 1}}, NULL},
        {{{"d", S_IFDIR | 0755, NULL, 1, 1},
          {"d/f", S_IFREG | 0644, "x", 2, 1},
          {"d", S_IFREG | 0644, "x", 3, 1}},
         "not empty"},
        {{{"x", 0644, "x", 1, 1}}, "file type"},
        {{{"l", S_IFLNK | 0777, "", 1, 1}}, "target"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_PLACE struct place p;
        struct error err = {0};
        int rc;

        place_set_up(&p);
        rc = unpack_raw(&p, cases[i].entries, &(struct unpack_options){0}, NULL, &err);
        assert_outside_untouched(&p);
        if (!cases[i].why) {
            assert_ok(rc);
        } else {
            const char *bar = strchr(cases[i].why, '|');
            AUTO_FREE char *first =
                bar ? xstrndup(cases[i].why, (size_t)(bar - cases[i].why)) : xstrdup(cases[i].why);

            assert_int_equal(rc, -1);
            if (!strstr(err.msg, first) && !(bar && strstr(err.msg, bar + 1)) && err.sys != ELOOP)
                fail_msg("case %zu: %s", i, err.msg);
        }
    }
}

/* A directory that held the first name is swapped for a link to the outside. */
static void test_hard_link_does_not_follow(void **state)
{
    static const struct raw entries[] = {
        {"d", S_IFDIR | 0755, NULL, 1, 1}, {"d/secret", S_IFREG | 0644, NULL, 2, 2}, {NULL}};
    static const struct raw later[] = {{"d/secret", S_IFREG | 0644, NULL, 2, 2}, {NULL}};
    AUTO_PLACE struct place p;
    struct error err = {0};

    (void)state;
    place_set_up(&p);
    assert_ok(unpack_raw(&p, entries, &(struct unpack_options){0}, NULL, &err));
    assert_int_equal(unlinkat(p.in, "d/secret", 0) | unlinkat(p.in, "d", AT_REMOVEDIR), 0);
    assert_int_equal(symlinkat("../out", p.in, "d"), 0);
    assert_int_equal(unpack_raw(&p, later, &(struct unpack_options){0}, NULL, &err), -1);
    assert_outside_untouched(&p);
}

static void test_modes_and_links(void **state)
{
    static const struct raw entries[] = {
        {".", S_IFDIR | 0711, NULL, 1, 1},
        {"ro", S_IFDIR | 0555, NULL, 2, 1},
        {"ro/suid", S_IFREG | 06755, "x", 3, 1},
        /* GNU cpio: the last name carries the content */
        {"one", S_IFREG | 0644, NULL, 4, 2},
        {"two", S_IFREG | 0644, "shared", 4, 2},
        {"missing/parent", S_IFREG | 0600, "x", 5, 1},
        {"fifo", S_IFIFO | 0640, NULL, 6, 1},
        {"socket", S_IFSOCK | 0640, NULL, 7, 1},
        {"twice", S_IFDIR | 0700, NULL, 8, 1},
        {"twice", S_IFDIR | 0751, NULL, 9, 1},
        {"over", S_IFREG | 0644, "first", 10, 1},
        {"over", S_IFREG | 0600, "second", 11, 1},
        {NULL},
    };
    struct unpack_result result;
    AUTO_PLACE struct place p;
    struct error err;

    (void)state;
    place_set_up(&p);
    assert_ok(unpack_raw(&p, entries, &(struct unpack_options){0}, &result, &err));
    assert_int_equal(result.skipped, 1);
    assert_int_equal(stat_of(p.in, ".").st_mode, S_IFDIR | 0711);
    assert_int_equal(stat_of(p.in, "ro").st_mode, S_IFDIR | 0555);
    assert_int_equal(stat_of(p.in, "ro").st_mtime, 1000);
    assert_int_equal(stat_of(p.in, "ro/suid").st_mode, S_IFREG | 0755);
    assert_content(p.in, "one", "shared");
    assert_content(p.in, "two", "shared");
    assert_int_equal(stat_of(p.in, "missing").st_mode & 0700, 0700);
    assert_int_equal(stat_of(p.in, "fifo").st_mode, S_IFIFO | 0640);
    assert_int_equal(stat_of(p.in, "twice").st_mode, S_IFDIR | 0751);
    assert_content(p.in, "over", "second");
    assert_int_equal(stat_of(p.in, "over").st_mode, S_IFREG | 0600);
}

static void test_set_id_bits_come_with_owners(void **state)
{
    static const struct raw entries[] = {{"suid", S_IFREG | 06755, "x", 3, 1}, {NULL}};
    AUTO_PLACE struct place p;
    struct error err;

    (void)state;
    place_set_up(&p);
    assert_ok(unpack_raw(&p, entries, &(struct unpack_options){.owners = true}, NULL, &err));
    assert_int_equal(stat_of(p.in, "suid").st_mode, S_IFREG | 06755);
}

static void test_link_out_of_the_prefix(void **state)
{
    static const struct raw entries[] = {{"hidden", S_IFREG | 0644, "x", 3, 2},
                                         {"rootfs", S_IFDIR | 0755, NULL, 4, 1},
                                         {"rootfs/seen", S_IFREG | 0644, NULL, 3, 2},
                                         {NULL}};
    AUTO_PLACE struct place p;
    struct error err = {0};

    (void)state;
    place_set_up(&p);
    assert_int_equal(
        unpack_raw(&p, entries, &(struct unpack_options){.prefix = "rootfs"}, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "not unpacked"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_app_ramdisk),
        cmocka_unit_test(test_whole_ramdisk_without_devices),
        cmocka_unit_test(test_nothing_gets_out),
        cmocka_unit_test(test_hard_link_does_not_follow),
        cmocka_unit_test(test_modes_and_links),
        cmocka_unit_test(test_set_id_bits_come_with_owners),
        cmocka_unit_test(test_link_out_of_the_prefix),
    };

    umask(022);
    return cmocka_run_group_tests_name("unpack", tests, NULL, NULL);
}
