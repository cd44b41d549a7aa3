#include "unit.h"

#include "oci/archive_stream.h"
#include "oci/tar_writer.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A second reader of the same bytes. */
static struct archive *reader(const struct buf *b)
{
    struct archive *a = archive_read_new();

    archive_read_support_format_tar(a);
    assert_int_equal(archive_read_open_memory(a, b->ptr, b->len), ARCHIVE_OK);
    return a;
}

static struct archive_entry *next(struct archive *a)
{
    struct archive_entry *e = NULL;

    assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_OK);
    assert_int_equal(archive_entry_uid(e), 0);
    assert_int_equal(archive_entry_gid(e), 0);
    return e;
}

static void test_headers(void **state)
{
    static const uint64_t sizes[] = {
        0, 1, 512, UINT64_C(077777777777), UINT64_C(1) << 33, UINT64_C(20) << 30};
    static const int64_t times[][2] = {{0, 0}, {-5, 0}, {1000, 1000}, {INT64_MAX, 077777777777}};
    char name[TAR_WRITER_NAME_MAX + 1];

    (void)state;
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (size_t j = 0; j < ARRAY_LEN(times); j++) {
            AUTO_BUF struct buf b = BUF(8192);
            struct archive_entry *e;
            struct archive *a;

            tar_put_dir(&b, "d/", 01777, times[j][0]);
            tar_put_file(&b, name, 0644, sizes[i], times[j][0]);
            assert_int_equal(b.len, 2 * TAR_BLOCK);
            a = reader(&b);
            e = next(a);
            assert_string_equal(archive_entry_pathname(e), "d/");
            assert_int_equal(archive_entry_mode(e), S_IFDIR | 01777);
            e = next(a);
            assert_string_equal(archive_entry_pathname(e), name);
            assert_int_equal(archive_entry_mode(e), S_IFREG | 0644);
            assert_true((uint64_t)archive_entry_size(e) == sizes[i]);
            assert_true(archive_entry_mtime(e) == times[j][1]);
            archive_read_free(a);
        }
    }
}

static void test_padding(void **state)
{
    (void)state;
    assert_int_equal(tar_padding(0).len, 0);
    assert_int_equal(tar_padding(1).len, 511);
    assert_int_equal(tar_padding(512).len, 0);
    assert_int_equal(tar_padding((UINT64_C(1) << 40) + 511).len, 1);
    assert_int_equal(tar_end().len, 1024);
}

/* Reads of any length give the same bytes, whose number is known before. */
static void test_archives_are_read_in_any_steps(void **state)
{
    static const size_t steps[] = {1 << 20, 1, 511, 513, 4096};
    struct content_blob layers[2] = {{.media_type = "l"}, {.media_type = "l"}};
    struct content_image image = {.manifest = {.media_type = "m"},
                                  .config = {.media_type = "c"},
                                  .layers = layers,
                                  .layer_count = 2};
    AUTO_BUF struct buf first = BUF(1 << 20);
    struct error err = {0};

    (void)state;
    content_add_bytes(&image.manifest, slice_str("{}"));
    content_add_bytes(&image.config, slice_str("{\"config\":{}}"));
    for (size_t i = 0; i < 2; i++) {
        content_add_bytes(&layers[i], slice_str(i ? "the layer " : "another "));
        content_add_bytes(&layers[i], slice_str("in two pieces"));
        assert_ok(content_measure(&layers[i], &err));
    }
    assert_ok(content_measure(&image.manifest, &err));
    assert_ok(content_measure(&image.config, &err));
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        AUTO_ARCHIVE_STREAM struct archive_stream *s = archive_stream_oci(&image, "t");
        AUTO_BUF struct buf all = BUF(1 << 20);
        ssize_t n;

        for (int again = 0; again < 2; again++) {
            buf_clear(&all);
            archive_stream_rewind(s);
            do {
                uint8_t *to = buf_reserve(&all, steps[i] < 8192 ? steps[i] : 8192);

                assert_non_null(to);
                n = archive_stream_read(s, to, steps[i] < 8192 ? steps[i] : 8192, &err);
                assert_true(n >= 0);
                all.len += (size_t)n;
            } while (n > 0);
            assert_int_equal(all.len, archive_stream_size(s));
        }
        if (i == 0)
            assert_int_equal(buf_append(&first, all.ptr, all.len), 0);
        assert_true(slice_equal(buf_slice(&first), buf_slice(&all)));
    }
}

/* A layer that comes twice is one member. */
static void test_equal_layers_are_one_member(void **state)
{
    struct content_blob layers[2] = {{.media_type = "l"}, {.media_type = "l"}};
    struct content_image image = {
        .config = {.media_type = "c"}, .layers = layers, .layer_count = 2};
    AUTO_ARCHIVE_STREAM struct archive_stream *s = NULL;
    AUTO_BUF struct buf all = BUF(1 << 20);
    struct error err = {0};
    struct archive_entry *e;
    struct archive *a;
    size_t blobs = 0;
    ssize_t n;

    (void)state;
    content_add_bytes(&image.config, slice_str("{}"));
    assert_ok(content_measure(&image.config, &err));
    for (size_t i = 0; i < 2; i++) {
        content_add_bytes(&layers[i], slice_str("the same"));
        assert_ok(content_measure(&layers[i], &err));
    }
    s = archive_stream_docker(&image, "app:1");
    n = archive_stream_read(s, buf_reserve(&all, 1 << 16), 1 << 16, &err);
    assert_true(n > 0);
    all.len = (size_t)n;
    assert_int_equal(all.len, archive_stream_size(s));
    a = reader(&all);
    while (archive_read_next_header(a, &e) == ARCHIVE_OK)
        blobs += archive_entry_filetype(e) == S_IFREG;
    assert_int_equal(blobs, 3);
    archive_read_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_archives_are_read_in_any_steps),
        cmocka_unit_test(test_equal_layers_are_one_member),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
