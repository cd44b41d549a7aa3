/* Trees written as EROFS images and read back; that the kernel agrees is tested in test_erofs.py.
 */
#include "unit.h"

#include "base/file.h"
#include "eif/erofs.h"
#include "eif/erofs_format.h"
#include "oci/erofs.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define IMAGE_MAX ((uint64_t)64 << 20)

static tree_node put(struct tree *t, const char *path, uint32_t mode, const void *bytes, size_t len)
{
    struct tree_meta m = {.mode = mode, .uid = 70000, .gid = 5, .mtime = 1234567890};
    struct error err = {0};
    tree_node node;

    if (S_ISLNK(mode))
        m.target = slice_of(bytes, len);
    if (S_ISCHR(mode)) {
        m.rdev_major = 10;
        m.rdev_minor = 300;
    }
    assert_ok(tree_add(t, slice_str(path), &m, &node, &err));
    if (S_ISREG(mode)) {
        assert_ok(tree_reserve(t, node, len, &err));
        if (len)
            assert_ok(tree_store(t, node, 0, bytes, len, &err));
    }
    return node;
}

/* Bytes that shrink to about half, or not at all. */
static uint8_t *content(size_t len, bool shrinks, uint32_t seed)
{
    uint8_t *p = xmalloc(len + 1);

    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        p[i] = shrinks && i % 32 >= 8 ? (uint8_t)(i / 32) : (uint8_t)(seed >> 24);
    }
    return p;
}

static void write_image(struct tree *t, struct buf *out)
{
    const struct erofs_options options = {0};
    struct error err = {0};
    AUTO_FD int fd = file_temp(&err);
    uint64_t size;

    assert_true(fd >= 0);
    assert_ok(erofs_write(t, fd, "image", IMAGE_MAX, &options, &size, &err));
    assert_int_equal(size % EROFS_BLOCK, 0);
    assert_ok(fd_read_all(fd, out, "image", &err));
    assert_int_equal(out->len, size);
}

static int from_buf(void *arg, void *ptr, size_t len, uint64_t offset, struct error *err)
{
    const struct buf *b = arg;

    (void)err;
    assert_true(offset + len <= b->len);
    memcpy(ptr, b->ptr + offset, len);
    return 0;
}

static struct erofs_reader *open_image(struct buf *image, struct error *err)
{
    return erofs_reader_new(from_buf, image, image->len, "root", err);
}

/* Whether all content of the present entry is these bytes. */
static void assert_content(struct erofs_reader *r, const void *bytes, size_t len)
{
    struct error err = {0};
    struct slice piece;
    size_t at = 0;
    int rc;

    while ((rc = erofs_reader_data(r, &piece, &err)) > 0) {
        assert_true(at + piece.len <= len);
        assert_memory_equal(piece.ptr, (const uint8_t *)bytes + at, piece.len);
        at += piece.len;
    }
    assert_ok(rc);
    assert_int_equal(at, len);
}

/* ---- round trips ---- */

static void test_file_sizes(void **state)
{
    static const size_t sizes[] = {0,      1,      4031,   4032,   4033,    4095,
                                   4096,   4097,   8191,   8192,   8193,    12287,
                                   12289,  131071, 131072, 131073, 135168,  139263,
                                   139264, 139265, 262144, 266239, 1000000, 1048576};
    struct tree_limits limits = TREE_LIMITS_DEFAULT;
    struct error err = {0};
    AUTO_TREE struct tree *t = tree_new(&limits, &err);
    AUTO_BUF struct buf image = BUF(IMAGE_MAX);
    AUTO_EROFS_READER struct erofs_reader *r = NULL;
    struct cpio_entry e;
    char name[32];

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(sizes); i++) {
        AUTO_FREE uint8_t *bytes = content(sizes[i / 2], i % 2, (uint32_t)i);

        snprintf(name, sizeof(name), "f%03zu", i);
        put(t, name, S_IFREG | 0640, bytes, sizes[i / 2]);
    }
    write_image(t, &image);
    r = open_image(&image, &err);
    assert_non_null(r);
    assert_int_equal(erofs_reader_next(r, &e, &err), 1);
    for (size_t i = 0; i < 2 * ARRAY_LEN(sizes); i++) {
        AUTO_FREE uint8_t *bytes = content(sizes[i / 2], i % 2, (uint32_t)i);

        snprintf(name, sizeof(name), "root/f%03zu", i);
        assert_int_equal(erofs_reader_next(r, &e, &err), 1);
        assert_true(slice_equal_str(e.name, name));
        assert_int_equal(e.size, sizes[i / 2]);
        assert_content(r, bytes, sizes[i / 2]);
    }
    assert_int_equal(erofs_reader_next(r, &e, &err), 0);
}

static void test_kinds(void **state)
{
    static const char capability[20] = "\x01\x00\x00\x02\x00\x04";
    struct tree_limits limits = TREE_LIMITS_DEFAULT;
    struct error err = {0};
    AUTO_TREE struct tree *t = tree_new(&limits, &err);
    AUTO_BUF struct buf image = BUF(IMAGE_MAX), again = BUF(IMAGE_MAX);
    AUTO_EROFS_READER struct erofs_reader *r = NULL;
    struct cpio_entry e;
    char target[4001] = {0};
    tree_node node;

    (void)state;
    memset(target, 't', 4000);
    put(t, "!before-dots", S_IFREG | 0600, "x", 1);
    put(t, "dev", S_IFDIR | 01777, NULL, 0);
    put(t, "dev/n", S_IFCHR | 0620, NULL, 0);
    put(t, "dev/p", S_IFIFO | 0600, NULL, 0);
    put(t, "hard", S_IFREG | 04755, "same", 4);
    assert_ok(tree_link(t, slice_str("dev/hard"), slice_str("hard"), &err));
    put(t, "link", S_IFLNK | 0777, target, 4000);
    node = put(t, "ping", S_IFREG | 0755, "cap", 3);
    assert_ok(tree_add_xattr(t, node, slice_str("user.other"), slice_str("left out"), &err));
    assert_ok(tree_add_xattr(t, node, slice_str("security.capability"),
                             slice_of(capability, sizeof(capability)), &err));
    write_image(t, &image);
    write_image(t, &again);
    assert_true(slice_equal(buf_slice(&image), buf_slice(&again)));
    r = open_image(&image, &err);
    assert_non_null(r);
    assert_int_equal(erofs_reader_next(r, &e, &err), 1);
    assert_true(slice_equal_str(e.name, "root"));
    assert_int_equal(e.mode, S_IFDIR | 0755);
    assert_int_equal(erofs_reader_next(r, &e, &err), 1);
    assert_true(slice_equal_str(e.name, "root/!before-dots"));
    assert_int_equal(e.uid, 70000);
    assert_int_equal(e.gid, 5);
    assert_int_equal(e.mtime, 1234567890);
    assert_int_equal(e.mode, S_IFREG | 0600);
    assert_int_equal(erofs_reader_next(r, &e, &err), 1);
    assert_int_equal(e.mode, S_IFDIR | 01777);
    assert_int_equal(erofs_reader_next(r, &e, &err), 1);
    assert_true(slice_equal_str(e.name, "root/dev/hard"));
    assert_int_equal(e.nlink, 2);
    assert_int_equal(e.mode, S_IFREG | 04755);
    assert_content(r, "same", 4);
    assert_int_equal(erofs_reader_next(r, &e, &err), 1);
    assert_int_equal(e.mode, S_IFCHR | 0620);
    assert_int_equal(e.rdev_major, 10);
    assert_int_equal(e.rdev_minor, 300);
    assert_content(r, "", 0);
    assert_int_equal(erofs_reader_next(r, &e, &err), 1);
    assert_int_equal(e.mode, S_IFIFO | 0600);
    assert_int_equal(erofs_reader_next(r, &e, &err), 1);
    assert_true(slice_equal_str(e.name, "root/hard"));
    assert_int_equal(e.nlink, 2);
    assert_int_equal(e.size, 0); /* it came with its first name */
    assert_int_equal(erofs_reader_next(r, &e, &err), 1);
    assert_int_equal(e.mode, S_IFLNK | 0777);
    assert_content(r, target, 4000);
    assert_int_equal(erofs_reader_next(r, &e, &err), 1);
    assert_true(slice_equal(e.capability, slice_of(capability, sizeof(capability))));
    assert_content(r, "cap", 3);
    assert_int_equal(erofs_reader_next(r, &e, &err), 0);
}

/* Directories of many blocks, and deep ones; the order in which a tree was made leaves no trace. */
static void test_directories(void **state)
{
    enum {
        NAMES = 3000,
        DEPTH = 1000
    };
    struct tree_limits limits = TREE_LIMITS_DEFAULT;
    struct error err = {0};
    AUTO_TREE struct tree *t = tree_new(&limits, &err), *other = tree_new(&limits, &err);
    AUTO_BUF struct buf image = BUF(IMAGE_MAX), again = BUF(IMAGE_MAX), path = BUF(TREE_PATH_MAX);
    AUTO_EROFS_READER struct erofs_reader *r = NULL;
    struct cpio_entry e;
    size_t count = 0;
    int rc;

    (void)state;
    for (int i = 0; i < NAMES; i++) {
        AUTO_FREE char *up = xasprintf("d/%0*d", i % 200 + 5, i);
        AUTO_FREE char *down = xasprintf("d/%0*d", (NAMES - 1 - i) % 200 + 5, NAMES - 1 - i);

        put(t, up, S_IFREG | 0644, up, 3);
        put(other, down, S_IFREG | 0644, down, 3);
    }
    for (int i = 0; i < DEPTH; i++)
        assert_int_equal(buf_append_str(&path, "/p"), 0);
    assert_ok(tree_make_dir(t, buf_slice(&path), 0755, 0, &err));
    assert_ok(tree_make_dir(other, buf_slice(&path), 0755, 0, &err));
    write_image(t, &image);
    write_image(other, &again);
    assert_true(slice_equal(buf_slice(&image), buf_slice(&again)));
    r = open_image(&image, &err);
    while ((rc = erofs_reader_next(r, &e, &err)) > 0)
        count++;
    assert_ok(rc);
    assert_int_equal(count, 2 + NAMES + DEPTH);
}

/* ---- refusals ---- */

static void test_too_big(void **state)
{
    struct tree_limits limits = TREE_LIMITS_DEFAULT;
    const struct erofs_options options = {0};
    struct error err = {0};
    AUTO_TREE struct tree *t = tree_new(&limits, &err);
    AUTO_FREE uint8_t *bytes = content(100000, false, 1);
    AUTO_FD int fd = file_temp(&err);
    uint64_t size;

    (void)state;
    put(t, "f", S_IFREG | 0644, bytes, 100000);
    assert_int_equal(erofs_write(t, fd, "image", 50000, &options, &size, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    assert_string_equal(err.msg, "/f: image: the file system image is larger than 50000 bytes");
}

/* Reads everything; 0 when all is well. */
static int read_all(struct buf *image, struct error *err)
{
    AUTO_EROFS_READER struct erofs_reader *r = open_image(image, err);
    struct cpio_entry e;
    struct slice piece;
    int rc;

    if (!r)
        return -1;
    while ((rc = erofs_reader_next(r, &e, err)) > 0) {
        while ((rc = erofs_reader_data(r, &piece, err)) > 0)
            ;
        if (rc < 0)
            return -1;
    }
    return rc;
}

/* The first inode of that mode. */
static uint8_t *inode_of_mode(struct buf *image, uint16_t mode)
{
    for (size_t at = EROFS_BLOCK; at + EROFS_INODE_LEN <= image->len; at += EROFS_SLOT)
        if (get_le16(image->ptr + at + EROFS_I_MODE) == mode &&
            get_le64(image->ptr + at + EROFS_I_MTIME) == 1234567890)
            return image->ptr + at;
    fail_msg("no inode with mode %o", mode);
    return NULL;
}

static void make_sample(struct buf *image)
{
    struct tree_limits limits = TREE_LIMITS_DEFAULT;
    struct error err = {0};
    AUTO_TREE struct tree *t = tree_new(&limits, &err);
    AUTO_FREE uint8_t *a = content(300000, true, 1), *b = content(9000, false, 2);

    buf_clear(image);
    put(t, "dir", S_IFDIR | 0711, NULL, 0);
    put(t, "dir/packed", S_IFREG | 0601, a, 300000);
    put(t, "dir/plain", S_IFREG | 0602, b, 9000);
    put(t, "dir/small", S_IFREG | 0603, "small", 5);
    write_image(t, image);
    assert_ok(read_all(image, &err));
}

static void assert_refused(struct buf *image, const char *why)
{
    struct error err = {0};

    assert_int_equal(read_all(image, &err), -1);
    if (!strstr(err.msg, why))
        fail_msg("not \"%s\" but \"%s\"", why, err.msg);
}

static void test_hostile(void **state)
{
    AUTO_BUF struct buf image = BUF(IMAGE_MAX);
    uint8_t *packed, *plain, *dir;

    (void)state;
    make_sample(&image);
    put_le32(image.ptr + EROFS_SUPER_AT, 0);
    assert_refused(&image, "no EROFS image starts here");
    make_sample(&image);
    put_le32(image.ptr + EROFS_SUPER_AT + EROFS_SB_INCOMPAT, 0x20);
    assert_refused(&image, "uses features that capsule-cli does not");

    /* Two files with the same blocks. */
    make_sample(&image);
    plain = inode_of_mode(&image, S_IFREG | 0602);
    packed = inode_of_mode(&image, S_IFREG | 0601);
    memcpy(plain + EROFS_I_UNION, packed + erofs_index_at(EROFS_INODE_LEN) + EROFS_Z_BLOCK, 4);
    assert_refused(&image, "root/dir/plain: its data belongs to another file, too");
    make_sample(&image);
    put_le32(inode_of_mode(&image, S_IFREG | 0602) + EROFS_I_UNION, 0xfffffff0);
    assert_refused(&image, "its data lies beyond the image's end");

    make_sample(&image);
    packed = inode_of_mode(&image, S_IFREG | 0601) + erofs_index_at(EROFS_INODE_LEN);
    put_le16(packed + EROFS_Z_ENTRY + EROFS_Z_BACK, EROFS_Z_COUNT | 32);
    assert_refused(&image, "an index that capsule-cli does not write");
    make_sample(&image);
    packed = inode_of_mode(&image, S_IFREG | 0601) + erofs_index_at(EROFS_INODE_LEN);
    memset(image.ptr + (size_t)get_le32(packed + EROFS_Z_BLOCK) * EROFS_BLOCK, 0xff, EROFS_BLOCK);
    assert_refused(&image, "compressed content that does not decompress");

    /* A directory that contains itself. */
    make_sample(&image);
    dir = inode_of_mode(&image, S_IFDIR | 0711);
    put_le64(dir + EROFS_INODE_LEN + (size_t)2 * EROFS_DIRENT,
             (uint64_t)(dir - image.ptr) / EROFS_SLOT);
    assert_refused(&image, "root/dir/packed: it is in the image twice");
    make_sample(&image);
    dir = inode_of_mode(&image, S_IFDIR | 0711);
    dir[EROFS_INODE_LEN + 5 * EROFS_DIRENT + 4] = '/'; /* behind "..." of the first two */
    assert_refused(&image, "a name that is empty, too long or not plain");
    make_sample(&image);
    dir = inode_of_mode(&image, S_IFDIR | 0711);
    put_le16(dir + EROFS_INODE_LEN + EROFS_D_NAME, 13);
    assert_refused(&image, "a directory's names overlap its entries");
}

/* Cut anywhere, an image is refused or reads as before; nothing reads past its end. */
static void test_truncated(void **state)
{
    AUTO_BUF struct buf image = BUF(IMAGE_MAX);
    struct error err = {0};

    (void)state;
    make_sample(&image);
    for (size_t len = image.len; len > 0; len = len > 97 ? len - 97 : 0) {
        AUTO_BUF struct buf cut = BUF(IMAGE_MAX);

        assert_int_equal(buf_append(&cut, image.ptr, len), 0);
        assert_int_equal(read_all(&cut, &err), len == image.len ? 0 : -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_sizes),  cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_directories), cmocka_unit_test(test_too_big),
        cmocka_unit_test(test_hostile),     cmocka_unit_test(test_truncated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
