#include "unit.h"
#include "vectors.h"

#include "codec/cpio.h"
#include "codec/crc32.h"
#include "crypto/hash.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <sys/stat.h>

#define ENTRIES_MAX 64

static int to_buf(void *arg, struct slice bytes, struct error *err)
{
    if (buf_append(arg, bytes.ptr, bytes.len) < 0)
        return error_set(err, ERR_LIMIT, "test buffer is full");
    return 0;
}

/* A source that gives bytes out in pieces of a changing, awkward size. */
struct drip {
    struct slice left;
    size_t piece;
};

static ssize_t from_drip(void *arg, uint8_t *ptr, size_t len, struct error *err)
{
    struct drip *d = arg;

    (void)err;
    if (len > d->piece)
        len = d->piece;
    if (len > d->left.len)
        len = d->left.len;
    if (len)
        memcpy(ptr, d->left.ptr, len);
    d->left.ptr += len;
    d->left.len -= len;
    d->piece = d->piece * 7 % 1021 + 1;
    return (ssize_t)len;
}

/* An entry that owns its strings. */
struct item {
    struct cpio_entry e;
    struct buf name, data, target;
};

static void free_items(struct item *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        buf_free(&items[i].name);
        buf_free(&items[i].data);
        buf_free(&items[i].target);
    }
}

static int by_name(const void *a, const void *b)
{
    return slice_compare(((const struct item *)a)->e.name, ((const struct item *)b)->e.name);
}

static int write_items(const struct item *items, size_t count, struct buf *out, struct error *err)
{
    AUTO_CPIO_WRITER struct cpio_writer *w = cpio_writer_new(to_buf, out);

    for (size_t i = 0; i < count; i++) {
        int rc = cpio_writer_begin(w, &items[i].e, err);

        if (rc < 0 || (rc > 0 && cpio_writer_data(w, buf_slice(&items[i].data), err) < 0))
            return -1;
    }
    return cpio_writer_finish(w, err);
}

/* ---- vectors ---- */

static uint32_t type_of(const char *type)
{
    static const struct {
        const char *name;
        uint32_t mode;
    } types[] = {{"file", S_IFREG}, {"dir", S_IFDIR}, {"symlink", S_IFLNK}, {"char", S_IFCHR}};

    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strcmp(types[i].name, type) == 0)
            return types[i].mode;
    fail_msg("type %s in vector", type);
    return 0;
}

static void item_of_json(const json_t *j, int64_t mtime, struct item *it)
{
    const char *link = vectors_str(j, "link");
    const json_t *dev = json_object_get(j, "dev");
    const char *target = vectors_str(j, "target");

    *it = (struct item){.name = BUF(4096), .data = BUF(4096), .target = BUF(4096)};
    assert_int_equal(buf_append_str(&it->name, vectors_str(j, "path")), 0);
    if (target)
        assert_int_equal(buf_append_str(&it->target, target), 0);
    if (vectors_str(j, "data_hex"))
        vectors_hex(j, "data_hex", &it->data);
    it->e = (struct cpio_entry){
        .name = buf_slice(&it->name),
        .target = buf_slice(&it->target),
        .size = it->data.len,
        .mode =
            type_of(vectors_str(j, "type")) | (uint32_t)strtoul(vectors_str(j, "mode"), NULL, 8),
        .uid = (uint32_t)json_integer_value(json_object_get(j, "uid")),
        .gid = (uint32_t)json_integer_value(json_object_get(j, "gid")),
        .mtime = mtime,
        .rdev_major = (uint32_t)json_integer_value(json_array_get(dev, 0)),
        .rdev_minor = (uint32_t)json_integer_value(json_array_get(dev, 1)),
        .link_group = link ? (uint8_t)link[0] : 0,
        .link_count = link ? 2 : 0,
    };
}

static void test_vectors(void **state)
{
    json_t *root = vectors_load("eif.json");
    json_t *archive, *entry;
    size_t i, n;

    (void)state;
    json_array_foreach (json_object_get(root, "cpio"), i, archive) {
        json_t *entries = json_object_get(archive, "entries");
        size_t count = json_array_size(entries);
        AUTO_BUF struct buf want = {0};
        AUTO_BUF struct buf got = BUF(1 << 20);
        struct item items[ENTRIES_MAX];
        uint64_t span = 0;
        struct error err;

        json_array_foreach (entries, n, entry) {
            item_of_json(entry, json_integer_value(json_object_get(archive, "mtime")), &items[n]);
        }
        qsort(items, count, sizeof(items[0]), by_name);
        assert_ok(write_items(items, count, &got, &err));
        vectors_base64(archive, "archive_base64", &want);
        assert_int_equal(got.len, want.len);
        assert_memory_equal(got.ptr, want.ptr, want.len);
        for (n = 0; n < count; n++) {
            bool repeats = n > 0 && items[n].e.link_group &&
                           items[n].e.link_group == items[n - 1].e.link_group;

            span += cpio_entry_span(items[n].e.name.len,
                                    repeats ? 0 : items[n].e.size + items[n].e.target.len);
        }
        assert_int_equal(cpio_archive_span(span), want.len);
        free_items(items, count);
    }
    json_decref(root);
}

static void test_crc32(void **state)
{
    uint32_t a = crc32_update(CRC32_EMPTY, slice_str("12345"));
    uint32_t b = crc32_update(CRC32_EMPTY, slice_str("6789"));

    (void)state;
    assert_int_equal(crc32_update(CRC32_EMPTY, slice_str("123456789")), 0xcbf43926);
    assert_int_equal(crc32_join(a, b, 4), 0xcbf43926);
    assert_int_equal(crc32_join(a, CRC32_EMPTY, 0), a);
    assert_int_equal(crc32_update(a, slice_of(NULL, 0)), a);
}

/* ---- what the writer refuses ---- */

#define NAME(s) .name = {(const uint8_t *)(s), sizeof(s) - 1}
#define DIR_OF(s)                                                                                  \
    {                                                                                              \
        NAME(s), .mode = S_IFDIR | 0755                                                            \
    }
#define FILE_OF(s)                                                                                 \
    {                                                                                              \
        NAME(s), .mode = S_IFREG | 0644                                                            \
    }

struct bad_archive {
    struct cpio_entry entries[4]; /* the last one that has a name is at fault */
    const char *why;
};

static const struct bad_archive bad_archives[] = {
    {{FILE_OF("b"), FILE_OF("a")}, "ascending"},
    {{FILE_OF("a"), FILE_OF("a")}, "ascending"},
    {{FILE_OF("a/b")}, "parent"},
    {{DIR_OF("a"), FILE_OF("ab/c")}, "parent"},
    {{FILE_OF("a"), FILE_OF("a/b")}, "parent"},
    {{{NAME("a"), .mode = S_IFLNK, .target = {(const uint8_t *)".", 1}}, FILE_OF("a/b")}, "parent"},
    {{DIR_OF("a"), DIR_OF("a-b"), FILE_OF("a-b-c/d")}, "parent"},
    {{FILE_OF("/a")}, "plain relative"},
    {{FILE_OF("./a")}, "plain relative"},
    {{DIR_OF("a"), FILE_OF("a/../b")}, "plain relative"},
    {{DIR_OF("a/")}, "plain relative"},
    {{DIR_OF("a"), FILE_OF("a//b")}, "plain relative"},
    {{DIR_OF(".")}, "plain relative"},
    {{FILE_OF("a\0b")}, "NUL"},
    {{FILE_OF("TRAILER!!!")}, "ends an archive"},
    {{{NAME("s"), .mode = S_IFSOCK | 0644}}, "socket"},
    {{{NAME("s"), .mode = 0644}}, "unknown file type"},
    {{{NAME("s"), .mode = S_IFREG, .size = UINT64_C(4294967296)}}, "4 GiB"},
    {{{NAME("l"), .mode = S_IFLNK}}, "target"},
    {{{NAME("d"), .mode = S_IFDIR, .link_group = 1, .link_count = 2}}, "several names"},
    {{{NAME("f"), .mode = S_IFREG, .link_group = 1, .link_count = 1}}, "several names"},
    {{{NAME("f"), .mode = S_IFREG, .link_group = 1, .link_count = 2},
      {NAME("g"), .mode = S_IFREG, .link_group = 1, .link_count = 3}},
     "more names"},
};

static void test_writer_refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad_archives); i++) {
        AUTO_BUF struct buf out = BUF(1 << 16);
        AUTO_CPIO_WRITER struct cpio_writer *w = cpio_writer_new(to_buf, &out);
        const struct cpio_entry *e = bad_archives[i].entries;
        struct error err = {0};

        for (; e[1].name.len; e++)
            assert_ok(cpio_writer_begin(w, e, &err));
        if (cpio_writer_begin(w, e, &err) >= 0)
            fail_msg("accepted: %s", bad_archives[i].why);
        if (!strstr(err.msg, bad_archives[i].why))
            fail_msg("%s: wanted %s", err.msg, bad_archives[i].why);
    }
}

static void test_writer_wants_whole_files(void **state)
{
    static const struct cpio_entry file = {NAME("f"), .mode = S_IFREG, .size = 3};
    static const struct cpio_entry linked = {NAME("f"), .mode = S_IFREG, .link_group = 5,
                                             .link_count = 2};
    AUTO_BUF struct buf out = BUF(1 << 16);
    AUTO_CPIO_WRITER struct cpio_writer *w = cpio_writer_new(to_buf, &out);
    AUTO_CPIO_WRITER struct cpio_writer *half = cpio_writer_new(to_buf, &out);
    struct error err = {0};

    (void)state;
    assert_int_equal(cpio_writer_begin(w, &file, &err), 1);
    assert_int_equal(cpio_writer_data(w, slice_str("ab"), &err), 0);
    assert_int_equal(cpio_writer_finish(w, &err), -1);
    assert_non_null(strstr(err.msg, "shorter"));
    assert_int_equal(cpio_writer_data(w, slice_str("cd"), &err), -1);
    assert_non_null(strstr(err.msg, "longer"));
    assert_int_equal(cpio_writer_data(w, slice_str("c"), &err), 0);
    assert_ok(cpio_writer_finish(w, &err));
    assert_int_equal(cpio_writer_finish(w, &err), -1);

    assert_int_equal(cpio_writer_begin(half, &linked, &err), 0);
    assert_int_equal(cpio_writer_finish(half, &err), -1);
    assert_non_null(strstr(err.msg, "fewer names"));
}

/* A directory stays a parent while names that sort between it and its entries go by. */
static void test_names_between_a_directory_and_its_entries(void **state)
{
    static const struct cpio_entry entries[] = {
        DIR_OF("a"),      DIR_OF("a!"),   FILE_OF("a!/x"), FILE_OF("a-b"),   DIR_OF("a.d"),
        FILE_OF("a.d/y"), FILE_OF("a/c"), DIR_OF("a/d"),   FILE_OF("a/d/e"), FILE_OF("a0")};
    AUTO_BUF struct buf out = BUF(1 << 16);
    AUTO_CPIO_WRITER struct cpio_writer *w = cpio_writer_new(to_buf, &out);
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(entries); i++)
        assert_ok(cpio_writer_begin(w, &entries[i], &err));
    assert_ok(cpio_writer_finish(w, &err));
    assert_int_equal(out.len % 512, 0);
}

/* ---- reading ---- */

static void test_random_round_trip(void **state)
{
    (void)state;
    srand(1);
    for (int round = 0; round < 50; round++) {
        size_t count = 1 + (size_t)rand() % ENTRIES_MAX;
        AUTO_BUF struct buf archive = BUF(1 << 24);
        AUTO_BUF struct buf twice = BUF(1 << 24);
        AUTO_CPIO_READER struct cpio_reader *r = NULL;
        struct item items[ENTRIES_MAX];
        struct drip drip = {.piece = 13};
        struct error err = {0};

        for (size_t i = 0; i < count; i++) {
            struct item *it = &items[i];
            size_t len = (size_t)rand() % (rand() % 4 ? 100 : 70000);

            *it = (struct item){.name = BUF(4096), .data = BUF(1 << 20), .target = BUF(4096)};
            assert_int_equal(buf_printf(&it->name, "%c%03zu", rand() % 94 + 33, i), 0);
            for (char *p = (char *)it->name.ptr; (size_t)(p - (char *)it->name.ptr) < it->name.len;
                 p++)
                if (*p == '/' || *p == '.')
                    *p = '_';
            assert_non_null(buf_reserve(&it->data, len));
            memset(it->data.ptr, rand() & 255, len);
            it->data.len = len;
            it->e = (struct cpio_entry){.name = buf_slice(&it->name),
                                        .mode = S_IFREG | ((uint32_t)rand() & 07777),
                                        .uid = (uint32_t)rand(),
                                        .gid = (uint32_t)rand(),
                                        .mtime = rand(),
                                        .size = len};
        }
        qsort(items, count, sizeof(items[0]), by_name);
        assert_ok(write_items(items, count, &archive, &err));
        /* Two archives end to end, as two ramdisks are. */
        assert_int_equal(buf_append(&twice, archive.ptr, archive.len), 0);
        assert_int_equal(buf_append(&twice, archive.ptr, archive.len), 0);
        drip.left = buf_slice(&twice);
        r = cpio_reader_new(from_drip, &drip);
        for (size_t i = 0; i < 2 * count; i++) {
            const struct item *want = &items[i % count];
            AUTO_BUF struct buf data = BUF(1 << 20);
            struct cpio_entry got;
            struct slice piece;
            int rc;

            if (cpio_reader_next(r, &got, &err) != 1)
                fail_msg("entry %zu: %s", i, err.msg);
            assert_true(slice_equal(got.name, want->e.name));
            assert_int_equal(got.mode, want->e.mode);
            assert_int_equal(got.uid, want->e.uid);
            assert_int_equal(got.gid, want->e.gid);
            assert_int_equal(got.mtime, want->e.mtime);
            assert_int_equal(got.nlink, 1);
            assert_int_equal(got.ino, i % count + 1);
            assert_int_equal(got.archive, i / count);
            if (i % 3 == 0)
                continue; /* content not asked for is skipped */
            while ((rc = cpio_reader_data(r, &piece, &err)) > 0)
                assert_int_equal(buf_append(&data, piece.ptr, piece.len), 0);
            assert_ok(rc);
            assert_true(slice_equal(buf_slice(&data), buf_slice(&want->data)));
        }
        {
            struct cpio_entry end;

            assert_int_equal(cpio_reader_next(r, &end, &err), 0);
            assert_int_equal(cpio_reader_next(r, &end, &err), 0);
        }
        free_items(items, count);
    }
}

/* Entries until the end: how many, or -1. */
static int count_entries(struct slice archive, struct error *err)
{
    struct drip drip = {archive, 1000};
    AUTO_CPIO_READER struct cpio_reader *r = cpio_reader_new(from_drip, &drip);
    struct cpio_entry e;
    int count = 0, rc;

    while ((rc = cpio_reader_next(r, &e, err)) > 0)
        count++;
    return rc < 0 ? -1 : count;
}

static void load_archive(struct buf *out)
{
    json_t *root = vectors_load("eif.json");

    vectors_base64(json_array_get(json_object_get(root, "cpio"), 1), "archive_base64", out);
    json_decref(root);
}

static void test_truncation_is_noticed(void **state)
{
    AUTO_BUF struct buf archive = {0};
    struct error err = {0};
    size_t trailer = 0;

    (void)state;
    load_archive(&archive);
    assert_int_equal(count_entries(buf_slice(&archive), &err), 12);
    for (size_t i = 0; i + 10 < archive.len; i++)
        if (memcmp(archive.ptr + i, "TRAILER!!!", 10) == 0)
            trailer = i;
    for (size_t len = 0; len < archive.len; len++) {
        /* Name, NUL and padding of the trailer end at +14; zeros that follow may be missing. */
        int want = len == 0 ? 0 : len < trailer + 14 ? -1 : 12;

        if (count_entries(slice_of(archive.ptr, len), &err) != want)
            fail_msg("cut at %zu: wanted %d", len, want);
    }
}

static void test_reader_refuses(void **state)
{
    static const struct {
        size_t at;
        const char *bytes;
        size_t len;
        enum error_kind kind;
        const char *why;
    } cases[] = {
        {0, "070707", 6, ERR_INVALID, "070701"},
        {0, "x", 1, ERR_INVALID, "no newc archive"},
        {0, "\x1f\x8b\x08", 3, ERR_UNSUPPORTED, "gzip"},
        {0, "\x28\xb5\x2f\xfd", 4, ERR_UNSUPPORTED, "zstd"},
        {0,
         "\xfd"
         "7zXZ",
         5, ERR_UNSUPPORTED, "xz"},
        {14, "0000 000", 8, ERR_INVALID, "hexadecimal"},
        {14, "0x000000", 8, ERR_INVALID, "hexadecimal"},
        {94, "00000000", 8, ERR_INVALID, "empty or longer"},
        {94, "00001001", 8, ERR_INVALID, "empty or longer"},
        {94, "00000003", 8, ERR_INVALID, "NUL"},
        {54, "FFFFFFFF", 8, ERR_INVALID, "middle of an entry"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_BUF struct buf archive = {0};
        struct error err = {0};

        load_archive(&archive);
        memcpy(archive.ptr + cases[i].at, cases[i].bytes, cases[i].len);
        assert_int_equal(count_entries(buf_slice(&archive), &err), -1);
        assert_int_equal(err.kind, cases[i].kind);
        if (!strstr(err.msg, cases[i].why))
            fail_msg("%s: wanted %s", err.msg, cases[i].why);
    }
}

static void test_misaligned_archive_is_refused(void **state)
{
    AUTO_BUF struct buf archive = {0};
    AUTO_BUF struct buf shifted = BUF(1 << 16);
    struct error err = {0};

    (void)state;
    load_archive(&archive);
    assert_int_equal(buf_append(&shifted, "\0\0\0\0", 4), 0);
    assert_int_equal(buf_append(&shifted, archive.ptr, archive.len), 0);
    assert_int_equal(count_entries(buf_slice(&shifted), &err), 12);
    assert_int_equal(count_entries(slice_of(shifted.ptr + 1, shifted.len - 1), &err), -1);
    assert_non_null(strstr(err.msg, "divisible by 4"));
}

/* ---- libarchive as the oracle ---- */

static const struct cpio_entry tree[] = {
    {NAME("d"), .mode = S_IFDIR | 01777, .uid = 1, .gid = 2, .mtime = 1700000000},
    {NAME("d/f1"), .mode = S_IFREG | 04750, .size = 5, .link_group = 9, .link_count = 2},
    {NAME("d/f2"), .mode = S_IFREG | 04750, .size = 5, .link_group = 9, .link_count = 2},
    {NAME("dev"), .mode = S_IFCHR | 0600, .rdev_major = 5, .rdev_minor = 1},
    {NAME("fifo"), .mode = S_IFIFO | 0644},
    {NAME("late"), .mode = S_IFREG | 0644, .mtime = INT64_C(4294967295)},
    {NAME("link"), .mode = S_IFLNK | 0777, .target = {(const uint8_t *)"d/f1", 4}},
};

static void test_libarchive_reads_ours(void **state)
{
    AUTO_BUF struct buf out = BUF(1 << 16);
    AUTO_CPIO_WRITER struct cpio_writer *w = cpio_writer_new(to_buf, &out);
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(tree); i++) {
        int rc = cpio_writer_begin(w, &tree[i], &err);

        assert_ok(rc);
        assert_int_equal(rc, strcmp((const char *)tree[i].name.ptr, "d/f1") == 0);
        if (rc)
            assert_ok(cpio_writer_data(w, slice_str("hello"), &err));
    }
    assert_ok(cpio_writer_finish(w, &err));
    archive_read_support_format_cpio(a);
    assert_int_equal(archive_read_open_memory(a, out.ptr, out.len), ARCHIVE_OK);
    for (size_t i = 0; i < ARRAY_LEN(tree); i++) {
        const struct cpio_entry *want = &tree[i];

        assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_OK);
        assert_string_equal(archive_entry_pathname(e), (const char *)want->name.ptr);
        assert_int_equal(archive_entry_mode(e), want->mode);
        assert_int_equal(archive_entry_uid(e), want->uid);
        assert_int_equal(archive_entry_gid(e), want->gid);
        assert_int_equal(archive_entry_mtime(e), want->mtime);
        assert_int_equal(archive_entry_nlink(e), want->link_group ? 2 : 1);
        if (S_ISLNK(want->mode))
            assert_string_equal(archive_entry_symlink(e), "d/f1");
        if (S_ISCHR(want->mode)) {
            assert_int_equal(archive_entry_rdevmajor(e), 5);
            assert_int_equal(archive_entry_rdevminor(e), 1);
        }
        if (slice_equal_str(want->name, "d/f2"))
            assert_string_equal(archive_entry_hardlink(e), "d/f1");
        else if (slice_equal_str(want->name, "d/f1"))
            assert_int_equal(archive_entry_size(e), 5);
    }
    assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_EOF);
    archive_read_free(a);
}

static void test_ours_reads_libarchive(void **state)
{
    char memory[1 << 16];
    size_t used = 0;
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    AUTO_CPIO_READER struct cpio_reader *r = NULL;
    struct drip drip = {.piece = 100};
    struct cpio_entry got;
    struct error err = {0};
    struct slice piece;

    (void)state;
    archive_write_set_format_cpio_newc(a);
    assert_int_equal(archive_write_open_memory(a, memory, sizeof(memory), &used), ARCHIVE_OK);
    for (size_t i = 0; i < ARRAY_LEN(tree); i++) {
        archive_entry_clear(e);
        archive_entry_set_pathname(e, (const char *)tree[i].name.ptr);
        archive_entry_set_mode(e, tree[i].mode);
        archive_entry_set_uid(e, tree[i].uid);
        archive_entry_set_mtime(e, (time_t)tree[i].mtime, 0);
        archive_entry_set_ino(e, (la_int64_t)i + 100);
        archive_entry_set_size(e, (la_int64_t)tree[i].size);
        if (S_ISLNK(tree[i].mode))
            archive_entry_set_symlink(e, "d/f1");
        assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
        if (tree[i].size)
            assert_int_equal(archive_write_data(a, "hello", 5), 5);
    }
    archive_entry_free(e);
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
    drip.left = slice_of(memory, used);
    r = cpio_reader_new(from_drip, &drip);
    for (size_t i = 0; i < ARRAY_LEN(tree); i++) {
        if (cpio_reader_next(r, &got, &err) != 1)
            fail_msg("%s", err.msg);
        assert_true(slice_equal(got.name, tree[i].name));
        assert_int_equal(got.mode, tree[i].mode);
        assert_int_equal(got.uid, tree[i].uid);
        assert_int_equal(got.mtime, tree[i].mtime);
        assert_int_equal(got.size, S_ISLNK(got.mode) ? 4 : tree[i].size);
        if (S_ISREG(got.mode) && got.size) {
            assert_int_equal(cpio_reader_data(r, &piece, &err), 1);
            assert_true(slice_equal_str(piece, "hello"));
        }
    }
    assert_int_equal(cpio_reader_next(r, &got, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_crc32),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_writer_wants_whole_files),
        cmocka_unit_test(test_names_between_a_directory_and_its_entries),
        cmocka_unit_test(test_random_round_trip),
        cmocka_unit_test(test_truncation_is_noticed),
        cmocka_unit_test(test_reader_refuses),
        cmocka_unit_test(test_misaligned_archive_is_refused),
        cmocka_unit_test(test_libarchive_reads_ours),
        cmocka_unit_test(test_ours_reads_libarchive),
    };

    return cmocka_run_group_tests_name("cpio", tests, NULL, NULL);
}
