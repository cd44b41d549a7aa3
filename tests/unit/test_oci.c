#include "unit.h"

#include "base/file.h"
#include "base/strv.h"
#include "oci/amend.h"
#include "oci/image.h"
#include "oci/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define DIFF "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void test_digests_are_strict(void **state)
{
    static const char *const bad[] = {
        "",
        "sha256:",
        "sha256:12",
        "md5:00",
        "SHA256:" DIFF,
        DIFF "0",
        "sha256:E3B0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"};
    char text[DIGEST_TEXT_MAX];
    struct error err = {0};
    struct digest d;

    (void)state;
    assert_ok(digest_parse(slice_str(DIFF), &d, &err));
    assert_string_equal(digest_text(&d, text), DIFF);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(digest_parse(slice_str(bad[i]), &d, &err), -1);
}

static void test_configurations(void **state)
{
    static const char good[] =
        "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":"
        "[\"" DIFF
        "\"]},\"config\":{\"Entrypoint\":\"/one\",\"Cmd\":null,\"Env\":[\"A=1\"],\"User\":\"u\","
        "\"ExposedPorts\":{\"80/"
        "tcp\":{}},\"Healthcheck\":{\"Test\":[\"NONE\"]},\"unknown\":[1,2]}}";
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"rootfs\":{\"diff_ids\":[1]}}",
        "{\"rootfs\":{\"diff_ids\":[\"md5:1\"]}}",
        "{\"rootfs\":{\"diff_ids\":[]},\"config\":{\"Cmd\":[1]}}",
        "{\"rootfs\":{\"diff_ids\":[]},\"config\":{\"Env\":{}}}",
        "{\"rootfs\":{\"diff_ids\":[]},\"config\":{\"User\":7}}",
        "{\"rootfs\":{\"diff_ids\":[]},\"config\":[]}",
        "{\"rootfs\":{\"diff_ids\":[]},\"rootfs\":{\"diff_ids\":[]}}",
    };
    CLEANUP(image_config_free) struct image_config c = {0};
    struct error err = {0};

    (void)state;
    assert_ok(image_config_parse(slice_str(good), "config", &c, &err));
    assert_string_equal(c.entrypoint[0], "/one");
    assert_null(c.cmd);
    assert_string_equal(c.user, "u");
    assert_string_equal(c.workdir, "");
    assert_string_equal(c.exposed_ports[0], "80/tcp");
    assert_false(c.healthcheck);
    assert_int_equal(c.diff_id_count, 1);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct image_config x = {0};

        if (image_config_parse(slice_str(bad[i]), "config", &x, &err) == 0)
            fail_msg("accepted: %s", bad[i]);
    }
}

static void test_amend_refuses_what_is_in_the_way(void **state)
{
    struct tree_meta f = {.mode = S_IFREG | 0644};
    struct amend_options o = {
        .manifest = slice_str("version: v1\n"), .cwd = "/srv/app", .mtime = 9};
    struct error err = {0};
    struct tree_entry e;

    (void)state;
    o.runtime_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    {
        AUTO_TREE struct tree *t = tree_new(NULL, &err);

        assert_ok(tree_begin_layer(t, &err));
        assert_ok(amend_tree(t, &o, &err));
        assert_true(tree_lookup(t, slice_str("/sbin/capsule-runtime"), true, &e));
        assert_int_equal(e.mode, S_IFREG | 0755);
        assert_int_equal(e.mtime, 9);
        assert_true(tree_lookup(t, slice_str("/srv/app"), true, &e) && S_ISDIR(e.mode));
        assert_true(tree_lookup(t, slice_str("/tmp"), true, &e));
        assert_int_equal(e.mode, S_IFDIR | 01777);
        assert_ok(tree_check(t, &err));
    }
    {
        AUTO_TREE struct tree *t = tree_new(NULL, &err);

        assert_ok(tree_begin_layer(t, &err));
        assert_ok(tree_add(t, slice_str("dev"), &f, NULL, &err));
        assert_int_equal(amend_tree(t, &o, &err), -1);
        assert_non_null(strstr(err.msg, "/dev"));
    }
    close(o.runtime_fd);
}

/* ---- the store ---- */

static char *scratch(void)
{
    char *dir = xstrdup("/tmp/capsule-store.XXXXXX");

    assert_non_null(mkdtemp(dir));
    return dir;
}

static void drop_scratch(char *dir)
{
    struct error err = {0};

    assert_ok(tree_remove(dir, &err));
    free(dir);
}

static struct stored_image add_image(struct store *s, const char *name, const char *eif)
{
    struct stored_image out = {0};
    struct error err = {0};

    assert_ok(store_put(s, slice_str(eif), &out.eif, &err));
    assert_ok(store_put(s, slice_str("version: v1\n"), &out.manifest, &err));
    assert_ok(store_add(s, name, &out, NULL, 0, &err));
    return out;
}

static size_t count_blobs(const char *dir)
{
    AUTO_FREE char *command = xasprintf("ls -A %s/blobs/sha256 | wc -l", dir);
    FILE *p = popen(command, "r");
    unsigned int n = 0;

    assert_int_equal(fscanf(p, "%u", &n), 1);
    pclose(p);
    return n;
}

static void test_store_finds_what_was_added(void **state)
{
    char *dir = scratch(), text[DIGEST_TEXT_MAX];
    struct error err = {0};
    struct stored_image one, got, *list;
    size_t count;

    (void)state;
    {
        AUTO_STORE struct store *s = store_open(dir, &err);
        AUTO_BUF struct buf bytes = BUF(1000);
        AUTO_BLOB struct blob b = BLOB_NONE;

        assert_non_null(s);
        one = add_image(s, "app:latest", "first");
        add_image(s, "other:2", "second");
        assert_ok(store_find(s, "app", &got, &err));
        assert_true(digest_equal(&got.self.digest, &one.self.digest));
        assert_int_equal(got.eif.size, 5);
        assert_ok(store_open_blob(s, &got.eif, &b, &err));
        assert_ok(blob_read(&b, &got.eif.digest, &bytes, &err));
        assert_string_equal(buf_cstr(&bytes), "first");
        assert_ok(store_find(s, digest_text(&one.self.digest, text), &got, &err));
        assert_string_equal(got.name, "app:latest");
        assert_int_equal(store_find(s, "none", &got, &err), -1);
        assert_int_equal(err.kind, ERR_NOT_FOUND);
        assert_int_equal(store_add(s, "bad name", &got, NULL, 0, &err), -1);
        /* The name moves on to a new image; nothing is collected while this one writes. */
        add_image(s, "app:latest", "third!");
        assert_ok(store_list(s, &list, &count, &err));
        assert_int_equal(count, 2);
        assert_string_equal(list[0].name, "app:latest");
        assert_int_equal(list[0].eif.size, 6);
        free(list);
        assert_ok(store_collect(s, NULL, &err));
        assert_int_equal(count_blobs(dir), 8);
    }
    {
        AUTO_STORE struct store *s = store_open(dir, &err);
        uint64_t freed = 0;

        assert_ok(store_collect(s, &freed, &err));
        assert_true(freed > 5);
        assert_int_equal(count_blobs(dir), 6);
        assert_ok(store_remove(s, "other:2", &err));
        assert_ok(store_remove(s, "app", &err));
        assert_int_equal(store_remove(s, "app", &err), -1);
        assert_int_equal(count_blobs(dir), 0);
    }
    drop_scratch(dir);
}

static void test_store_writer_leaves_nothing(void **state)
{
    char *dir = scratch();
    struct error err = {0};
    struct stored_blob b;

    (void)state;
    {
        AUTO_STORE struct store *s = store_open(dir, &err);
        struct store_writer w;

        assert_ok(store_write(s, &w, &err));
        assert_ok(fd_write_all(w.fd, "half", 4, "x", &err));
        store_drop(&w);
        assert_int_equal(count_blobs(dir), 0);
        assert_ok(store_write(s, &w, &err));
        assert_ok(fd_pwrite_all(w.fd, "body", 4, 4, "x", &err));
        assert_ok(fd_pwrite_all(w.fd, "head", 4, 0, "x", &err));
        assert_ok(store_commit(s, &w, &b, &err));
        assert_int_equal(b.size, 8);
        assert_int_equal(w.fd, -1);
        /* The same bytes again are the same blob. */
        assert_ok(store_put(s, slice_str("headbody"), &b, &err));
        assert_int_equal(count_blobs(dir), 1);
    }
    drop_scratch(dir);
}

static void test_store_with_several_processes(void **state)
{
    char *dir = scratch();
    struct error err = {0};
    struct stored_image *list;
    size_t count;
    int status;

    (void)state;
    for (int child = 0; child < 4; child++) {
        if (fork() == 0) {
            for (int i = 0; i < 10; i++) {
                AUTO_STORE struct store *s = store_open(dir, &err);
                AUTO_FREE char *name = xasprintf("app%d:%d", child, i);
                struct stored_image got;

                add_image(s, name, name);
                if (i % 2 == 0 && store_remove(s, name, &err) < 0)
                    _exit(1);
                store_collect(s, NULL, &err);
                if (i % 2 == 1 && store_find(s, name, &got, &err) < 0)
                    _exit(2);
            }
            _exit(0);
        }
    }
    for (int child = 0; child < 4; child++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    {
        AUTO_STORE struct store *s = store_open(dir, &err);

        assert_ok(store_collect(s, NULL, &err));
        assert_ok(store_list(s, &list, &count, &err));
        assert_int_equal(count, 20);
        free(list);
        /* Each has an EIF and a manifest of its own; capsule.yaml and {} are shared. */
        assert_int_equal(count_blobs(dir), 42);
    }
    drop_scratch(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digests_are_strict),
        cmocka_unit_test(test_configurations),
        cmocka_unit_test(test_amend_refuses_what_is_in_the_way),
        cmocka_unit_test(test_store_finds_what_was_added),
        cmocka_unit_test(test_store_writer_leaves_nothing),
        cmocka_unit_test(test_store_with_several_processes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
