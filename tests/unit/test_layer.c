#include "unit.h"

#include "oci/layer.h"
#include "oci/unpack.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

/* Appends a ustar entry (POSIX.1-2017 pax, "ustar Interchange Format"). */
static void put(struct buf *out, const char *name, char type, const char *link, const char *data)
{
    char block[512] = {0};
    size_t len = data ? strlen(data) : 0, pad = (512 - len % 512) % 512;
    unsigned int sum = 0;

    snprintf(block, 100, "%s", name);
    memcpy(block + 100, "0000755", 8);
    memcpy(block + 108, "0000007", 8);
    memcpy(block + 116, "0000011", 8);
    snprintf(block + 124, 12, "%011o", (unsigned int)len);
    memcpy(block + 136, "00000001750", 12);
    memset(block + 148, ' ', 8);
    block[156] = type;
    snprintf(block + 157, 100, "%s", link ? link : "");
    memcpy(block + 257, "ustar\00000", 8);
    for (size_t i = 0; i < sizeof(block); i++)
        sum += (uint8_t)block[i];
    snprintf(block + 148, 8, "%06o", sum);
    if (buf_append(out, block, sizeof(block)) < 0 || buf_append(out, data, len) < 0)
        fail();
    memset(block, 0, sizeof(block));
    if (buf_append(out, block, pad) < 0)
        fail();
}

static void finish(struct buf *out)
{
    static const char zeros[1024];

    if (buf_append(out, zeros, sizeof(zeros)) < 0)
        fail();
}

static struct blob blob_of(struct slice bytes)
{
    struct error err = {0};
    struct blob b = {.fd = memfd_create("blob", MFD_CLOEXEC), .own = true, .size = bytes.len};

    b.name = xstrdup("blob");
    assert_ok(fd_write_all(b.fd, bytes.ptr, bytes.len, "blob", &err));
    return b;
}

static struct digest digest_of(struct slice bytes)
{
    struct digest d = {.alg = HASH_SHA256};

    hash_once(HASH_SHA256, bytes, d.bytes);
    return d;
}

static void gzip_of(struct slice in, struct buf *out)
{
    z_stream z = {0};
    uint8_t *to = buf_reserve(out, in.len + 1000);

    deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    z.next_in = (Bytef *)(uintptr_t)in.ptr;
    z.avail_in = (uInt)in.len;
    z.next_out = to;
    z.avail_out = (uInt)(in.len + 1000);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out->len += z.total_out;
    deflateEnd(&z);
}

static void zstd_of(struct slice in, struct buf *out)
{
    uint8_t *to = buf_reserve(out, ZSTD_compressBound(in.len));

    out->len += ZSTD_compress(to, ZSTD_compressBound(in.len), in.ptr, in.len, 3);
}

static void test_entries_and_digests(void **state)
{
    AUTO_BUF struct buf tar = BUF(1 << 20);
    AUTO_BUF struct buf gz = BUF(1 << 20);
    AUTO_BUF struct buf zst = BUF(1 << 20);
    const struct buf *packed[] = {&tar, &gz, &zst};
    struct tree_entry e;
    struct error err = {0};
    struct digest diff;

    (void)state;
    put(&tar, "./usr/", '5', NULL, NULL);
    put(&tar, "usr/f", '0', NULL, "hello");
    put(&tar, "hard", '1', "./usr/f", NULL);
    put(&tar, "s", '2', "usr", NULL);
    put(&tar, "s/g", '0', NULL, "through");
    finish(&tar);
    diff = digest_of(buf_slice(&tar));
    gzip_of(buf_slice(&tar), &gz);
    zstd_of(buf_slice(&tar), &zst);
    for (size_t i = 0; i < ARRAY_LEN(packed); i++) {
        AUTO_BLOB struct blob b = blob_of(buf_slice(packed[i]));
        AUTO_TREE struct tree *t = tree_new(NULL, &err);
        struct digest want = digest_of(buf_slice(packed[i]));

        assert_ok(layer_apply(t, &b, &want, &diff, 0, &err));
        assert_ok(tree_check(t, &err));
        assert_true(tree_lookup(t, slice_str("usr/f"), false, &e));
        assert_int_equal(e.size, 5);
        assert_int_equal(e.nlink, 2);
        assert_int_equal(e.uid, 7);
        assert_int_equal(e.gid, 9);
        assert_int_equal(e.mtime, 01750);
        assert_true(tree_lookup(t, slice_str("usr/g"), false, &e));
        want.bytes[0] ^= 1;
        assert_int_equal(layer_apply(t, &b, &want, &diff, 0, &err), -1);
        assert_non_null(strstr(err.msg, "the blob: the digest does not match (want sha256:"));
        assert_int_equal(layer_apply(t, &b, NULL, &want, 0, &err), -1);
        assert_non_null(strstr(err.msg, "the uncompressed layer: the digest does not match"));
    }
}

static void test_streams_end_where_they_should(void **state)
{
    AUTO_BUF struct buf tar = BUF(1 << 20);
    AUTO_BUF struct buf gz = BUF(1 << 20);
    AUTO_BUF struct buf zst = BUF(1 << 20);
    struct error err = {0};

    (void)state;
    put(&tar, "f", '0', NULL, "some content");
    finish(&tar);
    gzip_of(buf_slice(&tar), &gz);
    zstd_of(buf_slice(&tar), &zst);
    for (int i = 0; i < 2; i++) {
        struct buf *in = i ? &zst : &gz;
        size_t whole = in->len;

        for (size_t len = 1; len < whole + 9; len += 7) {
            AUTO_BUF struct buf cut = BUF(1 << 20);
            AUTO_TREE struct tree *t = tree_new(NULL, &err);
            AUTO_BLOB struct blob b = BLOB_NONE;
            size_t keep = len < whole ? len : whole;

            if (buf_append(&cut, in->ptr, keep) < 0 ||
                buf_append(&cut, "garbage!!", len - keep) < 0)
                fail();
            if (cut.len == whole)
                continue;
            b = blob_of(buf_slice(&cut));
            assert_int_equal(layer_apply(t, &b, NULL, NULL, 0, &err), -1);
            assert_ok(tree_check(t, &err));
        }
    }
}

static void test_empty_layers(void **state)
{
    AUTO_BUF struct buf zeros = BUF(4096);
    AUTO_BUF struct buf gz = BUF(4096);
    struct error err = {0};

    (void)state;
    finish(&zeros);
    gzip_of(buf_slice(&zeros), &gz);
    struct slice cases[] = {slice_of("", 0), buf_slice(&zeros), buf_slice(&gz)};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_TREE struct tree *t = tree_new(NULL, &err);
        AUTO_BLOB struct blob b = blob_of(cases[i]);

        assert_ok(layer_apply(t, &b, NULL, NULL, 0, &err));
    }
}

static void test_size_limit(void **state)
{
    AUTO_BUF struct buf zeros = BUF(1 << 20);
    AUTO_BUF struct buf gz = BUF(1 << 20);
    struct error err = {0};

    (void)state;
    for (int i = 0; i < 500; i++)
        finish(&zeros);
    gzip_of(buf_slice(&zeros), &gz);
    AUTO_BLOB struct blob b = blob_of(buf_slice(&gz));
    AUTO_TREE struct tree *t = tree_new(NULL, &err);
    assert_ok(layer_apply(t, &b, NULL, NULL, 512000, &err));
    assert_int_equal(layer_apply(t, &b, NULL, NULL, 511999, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries_and_digests),
        cmocka_unit_test(test_streams_end_where_they_should),
        cmocka_unit_test(test_empty_layers),
        cmocka_unit_test(test_size_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
