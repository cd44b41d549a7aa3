#include "unit.h"

#include "base/file.h"
#include "oci/tree.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static struct tree_meta dir_meta(uint32_t perm)
{
    return (struct tree_meta){.mode = S_IFDIR | perm, .mtime = 5};
}

static void put_dir(struct tree *t, const char *path, uint32_t perm)
{
    struct tree_meta m = dir_meta(perm);
    struct error err = {0};

    assert_ok(tree_add(t, slice_str(path), &m, NULL, &err));
}

static void put_file(struct tree *t, const char *path, const char *text)
{
    struct tree_meta m = {.mode = S_IFREG | 0644, .mtime = 5};
    struct error err = {0};
    tree_node node;

    assert_ok(tree_add(t, slice_str(path), &m, &node, &err));
    assert_ok(tree_reserve(t, node, strlen(text), &err));
    assert_ok(tree_store(t, node, 0, text, strlen(text), &err));
}

static void put_link(struct tree *t, const char *path, const char *target)
{
    struct tree_meta m = {.mode = S_IFLNK | 0777, .target = slice_str(target)};
    struct error err = {0};

    assert_ok(tree_add(t, slice_str(path), &m, NULL, &err));
}

/* "d usr|- usr/a=text|l lib=usr/lib|..." with hard-link groups as "#INO". */
static const char *show(struct tree *t)
{
    static struct buf shown = BUF(100000);
    struct buf *out = &shown;
    AUTO_TREE_WALK struct tree_walk *w = tree_walk_new(t);
    struct error err = {0};
    struct tree_entry e;
    int rc = 0;

    buf_clear(out);
    while (tree_walk_next(w, &e)) {
        char text[200];
        ssize_t n = 0;

        rc |= buf_printf(out, "%s%c %.*s", out->len ? "|" : "",
                         S_ISDIR(e.mode)   ? 'd'
                         : S_ISLNK(e.mode) ? 'l'
                         : S_ISREG(e.mode) ? '-'
                                           : '?',
                         (int)e.path.len, (const char *)e.path.ptr);
        if (S_ISREG(e.mode)) {
            AUTO_TREE_CONTENT struct tree_content c = TREE_CONTENT_NONE;

            assert_ok(tree_content_open(t, e.node, &c, &err));
            n = tree_content_read(&c, text, sizeof(text), &err);
            rc |= buf_printf(out, "=%.*s", (int)n, text);
        }
        if (S_ISLNK(e.mode))
            rc |= buf_printf(out, "=%.*s", (int)e.target.len, (const char *)e.target.ptr);
        if (e.nlink > 1 && !S_ISDIR(e.mode))
            rc |= buf_printf(out, "#%u%s", e.ino, e.first ? "" : "+");
    }
    assert_int_equal(rc, 0);
    assert_ok(tree_check(t, &err));
    return buf_cstr(out);
}

#define START                                                                                      \
    struct error err = {0};                                                                        \
    AUTO_TREE struct tree *t = tree_new(NULL, &err);                                               \
    (void)state;                                                                                   \
    assert_non_null(t);                                                                            \
    assert_ok(tree_begin_layer(t, &err))

static void test_order_is_that_of_full_paths(void **state)
{
    START;
    put_file(t, "a/b", "1");
    put_file(t, "a.b", "2");
    put_file(t, "a-/x", "3");
    put_file(t, "a-.c", "4");
    put_file(t, "a/c/d", "5");
    put_file(t, "a0", "6");
    put_file(t, "a/b-", "7");
    assert_string_equal(show(t), "d a|d a-|- a-.c=4|- a-/x=3|- a.b=2|- a/b=1|- a/b-=7|"
                                 "d a/c|- a/c/d=5|- a0=6");
}

static void test_order_against_a_sort(void **state)
{
    static const char letters[] = "-./0a~";
    char last[64] = "";
    struct tree_entry e;

    START;
    srand(7);
    for (int i = 0; i < 4000; i++) {
        char path[64] = "";
        size_t len = 1 + (size_t)rand() % 12;

        for (size_t j = 0; j < len; j++)
            path[j] = letters[(size_t)rand() % (sizeof(letters) - 1)];
        if (!strstr(path, ".."))
            put_dir(t, path, 0755);
    }
    AUTO_TREE_WALK struct tree_walk *w = tree_walk_new(t);
    while (tree_walk_next(w, &e)) {
        char now[64] = "";

        memcpy(now, e.path.ptr, e.path.len);
        assert_true(strcmp(last, now) < 0);
        strcpy(last, now);
    }
    assert_ok(tree_check(t, &err));
}

static void test_nothing_gets_out(void **state)
{
    START;
    put_file(t, "../../etc/passwd", "a");
    put_file(t, "/abs", "b");
    put_link(t, "up", "../../..");
    put_file(t, "up/here", "c");
    put_link(t, "root", "/");
    put_file(t, "root/root/there", "d");
    put_link(t, "dangling", "/made/../deep");
    put_file(t, "dangling/x", "e");
    assert_string_equal(show(t),
                        "- abs=b|l dangling=/made/../deep|d deep|- deep/x=e|d etc|- etc/passwd=a|"
                        "- here=c|d made|l root=/|- there=d|l up=../../..");
    put_link(t, "loop1", "loop2");
    put_link(t, "loop2", "loop1/x");
    struct tree_meta m = dir_meta(0755);
    assert_int_equal(tree_add(t, slice_str("loop1/y"), &m, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "circles"));
    assert_int_equal(tree_add(t, slice_str("abs/y"), &m, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "not a directory"));
    assert_int_equal(tree_link(t, slice_str("hard"), slice_str("../../../nowhere"), &err), -1);
    assert_int_equal(tree_link(t, slice_str("hard"), slice_str("etc"), &err), -1);
}

static void test_types_replace_and_directories_merge(void **state)
{
    struct tree_entry e;

    START;
    put_file(t, "d/one", "1");
    put_file(t, "f", "2");
    put_link(t, "l", "d");
    assert_ok(tree_begin_layer(t, &err));
    put_dir(t, "d/", 0700);
    put_dir(t, "f", 0755);
    put_dir(t, "l", 0755);
    put_file(t, "l/two", "3");
    assert_string_equal(show(t), "d d|- d/one=1|d f|d l|- l/two=3");
    assert_true(tree_lookup(t, slice_str("d"), false, &e));
    assert_int_equal(e.mode & 07777, 0700);
    put_file(t, "d", "4");
    assert_string_equal(show(t), "- d=4|d f|d l|- l/two=3");
}

static void test_hard_links(void **state)
{
    START;
    put_file(t, "z/orig", "x");
    put_file(t, "lone", "y");
    assert_ok(tree_begin_layer(t, &err));
    assert_ok(tree_link(t, slice_str("a"), slice_str("/z/orig"), &err));
    assert_ok(tree_link(t, slice_str("b"), slice_str("a"), &err));
    assert_ok(tree_link(t, slice_str("b"), slice_str("b"), &err));
    assert_string_equal(show(t), "- a=x#1|- b=x#1+|- lone=y|d z|- z/orig=x#1+");
    /* A new file under one name leaves the others alone. */
    put_file(t, "a", "new");
    assert_string_equal(show(t), "- a=new|- b=x#2|- lone=y|d z|- z/orig=x#2+");
    /* The name replaces a directory that holds the target. */
    assert_ok(tree_link(t, slice_str("z"), slice_str("z/orig"), &err));
    assert_string_equal(show(t), "- a=new|- b=x#2|- lone=y|- z=x#2+");
    assert_ok(tree_whiteout(t, slice_str("b"), &err));
    assert_string_equal(show(t), "- a=new|- b=x#2|- lone=y|- z=x#2+");
    assert_ok(tree_begin_layer(t, &err));
    assert_ok(tree_whiteout(t, slice_str("b"), &err));
    assert_string_equal(show(t), "- a=new|- lone=y|- z=x");
}

static void test_whiteouts_hide_lower_layers_only(void **state)
{
    START;
    put_file(t, "d/old1", "1");
    put_file(t, "d/sub/old2", "2");
    put_file(t, "d/gone/x", "3");
    put_file(t, "e/keep", "4");
    assert_ok(tree_begin_layer(t, &err));
    put_file(t, "d/new", "5");
    put_file(t, "d/sub/new2", "6");
    assert_ok(tree_make_opaque(t, slice_str("d"), &err));
    assert_ok(tree_whiteout(t, slice_str("d/new"), &err));
    assert_ok(tree_whiteout(t, slice_str("not/there"), &err));
    put_file(t, "d/late", "7");
    assert_ok(tree_make_opaque(t, slice_str("d/"), &err));
    assert_string_equal(show(t), "d d|- d/late=7|- d/new=5|d d/sub|- d/sub/new2=6|d e|- e/keep=4");
    assert_ok(tree_begin_layer(t, &err));
    assert_ok(tree_whiteout(t, slice_str("d"), &err));
    assert_ok(tree_make_opaque(t, slice_str(""), &err));
    assert_string_equal(show(t), "");
}

static void test_whiteout_through_links(void **state)
{
    START;
    put_dir(t, "usr/lib", 0755);
    put_file(t, "usr/lib/a", "1");
    put_file(t, "usr/lib/b", "2");
    put_link(t, "lib", "usr/lib");
    assert_ok(tree_begin_layer(t, &err));
    assert_ok(tree_whiteout(t, slice_str("lib/a"), &err));
    assert_string_equal(show(t), "l lib=usr/lib|d usr|d usr/lib|- usr/lib/b=2");
    assert_ok(tree_whiteout(t, slice_str("lib"), &err));
    assert_string_equal(show(t), "d usr|d usr/lib|- usr/lib/b=2");
}

static void test_limits(void **state)
{
    struct tree_limits small = {.entries_max = 10, .content_max = 100, .mtime_max = 3};
    struct tree_meta m = dir_meta(0755);
    struct tree_meta f = {.mode = S_IFREG | 0600, .mtime = -7};
    char name[300], path[TREE_PATH_MAX + 10];
    struct tree_entry e;
    tree_node node;

    START;
    memset(name, 'n', sizeof(name));
    name[256] = '\0';
    assert_int_equal(tree_add(t, slice_str(name), &m, NULL, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    for (size_t i = 0; i < sizeof(path); i++)
        path[i] = i % 2 ? '/' : 'p';
    assert_ok(tree_add(t, slice_of(path, TREE_PATH_MAX), &m, NULL, &err));
    assert_int_equal(tree_add(t, slice_of(path, TREE_PATH_MAX + 2), &m, NULL, &err), -1);
    /* ... and a symbolic link is no way to go deeper. */
    put_link(t, "s", "p/p/p/p/p");
    path[0] = 's';
    assert_int_equal(tree_add(t, slice_of(path, TREE_PATH_MAX), &m, NULL, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    assert_ok(tree_check(t, &err));

    AUTO_TREE struct tree *u = tree_new(&small, &err);
    assert_ok(tree_begin_layer(u, &err));
    assert_ok(tree_add(u, slice_str("f"), &f, &node, &err));
    assert_int_equal(tree_reserve(u, node, 101, &err), -1);
    assert_ok(tree_reserve(u, node, 100, &err));
    assert_int_equal(tree_store(u, node, 99, "xx", 2, &err), -1);
    assert_ok(tree_add(u, slice_str("d"), &m, NULL, &err));
    assert_true(tree_lookup(u, slice_str("d"), false, &e));
    assert_int_equal(e.mtime, 3);
    assert_true(tree_lookup(u, slice_str("f"), false, &e));
    assert_int_equal(e.mtime, 0);
    assert_int_equal(tree_add(u, slice_str("1/2/3/4/5/6/7/8/9/10"), &m, NULL, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
}

static void test_sparse_content_reads_as_zeros(void **state)
{
    struct tree_meta f = {.mode = S_IFREG | 0600};
    CLEANUP(tree_content_close) struct tree_content c = TREE_CONTENT_NONE;
    static char got[70000];
    size_t total = 0;
    tree_node node;
    ssize_t n;

    START;
    assert_ok(tree_add(t, slice_str("f"), &f, &node, &err));
    assert_ok(tree_reserve(t, node, sizeof(got), &err));
    assert_ok(tree_store(t, node, 40000, "mid", 3, &err));
    assert_ok(tree_content_open(t, node, &c, &err));
    while ((n = tree_content_read(&c, got + total, sizeof(got) - total, &err)) > 0)
        total += (size_t)n;
    assert_int_equal(n, 0);
    assert_int_equal(total, sizeof(got));
    assert_memory_equal(got + 40000, "mid", 3);
    for (size_t i = 0; i < sizeof(got); i++)
        assert_true(got[i] == 0 || (i >= 40000 && i < 40003));
}

static void test_capabilities_are_refused_or_dropped(void **state)
{
    struct tree_meta f = {.mode = S_IFREG | 0755};
    struct slice name, value;
    struct tree_entry e;
    uint32_t cursor = 0;
    tree_node node;

    START;
    assert_ok(tree_add(t, slice_str("bin/ping"), &f, &node, &err));
    assert_ok(tree_add_xattr(t, node, slice_str("user.a"), slice_str("1"), &err));
    assert_ok(tree_add_xattr(t, node, slice_str("security.capability"), slice_of("\0\1", 2), &err));
    assert_true(tree_next_xattr(t, node, &cursor, &name, &value));
    assert_true(slice_equal_str(name, "security.capability") && value.len == 2);
    assert_true(tree_next_xattr(t, node, &cursor, &name, &value));
    assert_true(slice_equal_str(name, "user.a"));
    assert_false(tree_next_xattr(t, node, &cursor, &name, &value));
    assert_int_equal(tree_capabilities(t, TREE_CAPABILITIES_REFUSE, &err), -1);
    assert_non_null(strstr(err.msg, "/bin/ping"));
    assert_non_null(strstr(err.hint, "--drop-capabilities"));
    assert_ok(tree_capabilities(t, TREE_CAPABILITIES_DROP, &err));
    assert_ok(tree_capabilities(t, TREE_CAPABILITIES_REFUSE, &err));
    assert_true(tree_lookup(t, slice_str("bin/ping"), false, &e));
    assert_false(e.capability);
    /* A file that a later layer replaced does not count. */
    assert_ok(tree_add_xattr(t, node, slice_str("security.capability"), slice_of("\0\1", 2), &err));
    put_file(t, "bin/ping", "x");
    assert_ok(tree_capabilities(t, TREE_CAPABILITIES_REFUSE, &err));
}

static void test_lookup_follows_inside(void **state)
{
    struct tree_entry e;

    START;
    put_file(t, "usr/bin/real", "x");
    put_link(t, "bin", "usr/bin");
    put_link(t, "usr/bin/alias", "../../bin/real");
    put_link(t, "self", "self");
    assert_true(tree_lookup(t, slice_str("/bin/alias"), true, &e) && S_ISREG(e.mode));
    assert_true(tree_lookup(t, slice_str("/bin/alias"), false, &e) && S_ISLNK(e.mode));
    assert_false(tree_lookup(t, slice_str("self"), true, &e));
    assert_false(tree_lookup(t, slice_str("bin/real/x"), true, &e));
    assert_true(tree_lookup(t, slice_str("/"), true, &e) && S_ISDIR(e.mode));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_is_that_of_full_paths),
        cmocka_unit_test(test_order_against_a_sort),
        cmocka_unit_test(test_nothing_gets_out),
        cmocka_unit_test(test_types_replace_and_directories_merge),
        cmocka_unit_test(test_hard_links),
        cmocka_unit_test(test_whiteouts_hide_lower_layers_only),
        cmocka_unit_test(test_whiteout_through_links),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_sparse_content_reads_as_zeros),
        cmocka_unit_test(test_capabilities_are_refused_or_dropped),
        cmocka_unit_test(test_lookup_follows_inside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
