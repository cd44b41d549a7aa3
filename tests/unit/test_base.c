#include "unit.h"

#include "base/file.h"
#include "base/proc.h"
#include "base/queue.h"
#include "base/xdg.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void test_error_reads_as_one_sentence(void **state)
{
    struct error err = {0};

    (void)state;
    assert_int_equal(error_sys(&err, ENOENT, "opening %s", "x.yaml"), -1);
    error_hint(&err, "first");
    error_hint(&err, "second");
    error_wrap(&err, "loading %s", "manifest");
    assert_string_equal(err.msg, "loading manifest: opening x.yaml: No such file or directory");
    assert_string_equal(err.hint, "first");
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_int_equal(err.sys, ENOENT);
    assert_int_equal(error_set(NULL, ERR_IO, "no one listens"), -1);
}

static void test_buf_keeps_its_maximum(void **state)
{
    AUTO_BUF struct buf b = BUF(100);
    char big[101] = {0};

    (void)state;
    assert_int_equal(buf_append(&b, big, 101), -1);
    assert_int_equal(b.len, 0);
    assert_int_equal(buf_append(&b, big, 100), 0);
    assert_int_equal(buf_append_byte(&b, 1), -1);
    buf_consume(&b, 40);
    assert_int_equal(b.len, 60);
    assert_int_equal(buf_printf(&b, "%s", "abc"), 0);
    assert_string_equal(buf_cstr(&b) + 60, "abc");
    assert_null(buf_reserve(&b, SIZE_MAX));
}

static void test_reader_stops_at_the_end(void **state)
{
    struct reader r = reader_of(slice_of("\x01\x02\x03", 3));
    struct slice s;
    uint16_t v16 = 0;
    uint32_t v32 = 7;

    (void)state;
    assert_false(reader_be32(&r, &v32));
    assert_int_equal(v32, 7);
    assert_true(reader_le16(&r, &v16));
    assert_int_equal(v16, 0x0201);
    assert_false(reader_take(&r, 2, &s));
    assert_true(reader_take(&r, 1, &s));
    assert_int_equal(reader_left(&r), 0);
}

static void test_queue_wraps_and_is_bounded(void **state)
{
    struct queue q = QUEUE(8);
    uint8_t out[8];

    (void)state;
    for (int round = 0; round < 50; round++) {
        size_t got = 0;

        assert_int_equal(queue_write(&q, "abcdefghij", 5), 5);
        assert_int_equal(queue_write(&q, "fghij", 5), 3);
        assert_int_equal(queue_room(&q), 0);
        while (q.len) {
            struct slice s = queue_peek(&q);

            memcpy(out + got, s.ptr, s.len);
            got += s.len;
            queue_consume(&q, s.len);
        }
        assert_memory_equal(out, "abcdefgh", 8);
        queue_write(&q, "xyz", (size_t)round % 4);
        queue_consume(&q, 8);
    }
    queue_free(&q);
}

static void test_base64_is_canonical(void **state)
{
    static const char *const bad[] = {
        "A", "AA", "AAA", "AB==", "AAB=", "A===", "AA=A", "AAAA=", "AA A=", "AA-_", "AAAA\n"};
    static const char *const good[] = {"", "AA==", "AAA=", "AAAA", "+/+/", "Zm9vYmE="};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_BUF struct buf b = BUF(100);
        assert_int_equal(base64_decode(slice_str(bad[i]), &b), -1);
    }
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        AUTO_BUF struct buf b = BUF(100);
        AUTO_BUF struct buf again = BUF(100);

        assert_int_equal(base64_decode(slice_str(good[i]), &b), 0);
        assert_int_equal(base64_encode(buf_slice(&b), &again), 0);
        assert_string_equal(buf_cstr(&again), good[i]);
    }
}

static void test_utf8_hex_and_numbers(void **state)
{
    static const char *const bad[] = {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "\xe2\x82", "\xff",         "\xe0\x80\x80",
                                      "a\x80"};
    uint64_t v;
    uint8_t raw[2];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(utf8_valid(slice_str(bad[i])));
    assert_true(utf8_valid(slice_str("z\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")));
    assert_int_equal(hex_decode(slice_str("aB0"), raw, 2), -1);
    assert_int_equal(hex_decode(slice_str("aB0g"), raw, 2), -1);
    assert_int_equal(hex_decode(slice_str("aB0f"), raw, 2), 0);
    assert_int_equal(raw[0], 0xab);
    assert_int_equal(parse_u64(slice_str("18446744073709551615"), UINT64_MAX, &v), 0);
    assert_int_equal(parse_u64(slice_str("18446744073709551616"), UINT64_MAX, &v), -1);
    assert_int_equal(parse_u64(slice_str("01"), 100, &v), -1);
    assert_int_equal(parse_u64(slice_str("-1"), 100, &v), -1);
    assert_int_equal(parse_u64(slice_str(""), 100, &v), -1);
    assert_int_equal(parse_u64(slice_str("101"), 100, &v), -1);
}

static void test_atomic_file_is_all_or_nothing(void **state)
{
    char dir[] = "/tmp/capsule-test.XXXXXX";
    char path[64], list[80];
    struct error err = {0};
    struct stat st;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/out", dir);
    {
        CLEANUP(atomic_file_drop) struct atomic_file f = ATOMIC_FILE_NONE;

        assert_ok(atomic_file_open(&f, path, 0640, &err));
        assert_ok(fd_write_all(f.fd, "half", 4, path, &err));
    }
    assert_int_equal(access(path, F_OK), -1);
    assert_ok(file_write_atomic(path, slice_str("one"), 0640, &err));
    assert_ok(file_write_atomic(path, slice_str("two!"), 0604, &err));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 4);
    assert_int_equal(st.st_mode & 07777, 0604);
    snprintf(list, sizeof(list), "test \"$(ls %s)\" = out", dir);
    assert_int_equal(system(list), 0);
    assert_ok(tree_remove(dir, &err));
    assert_int_equal(access(dir, F_OK), -1);
}

static void test_unnamed_file_becomes_the_target_once(void **state)
{
    char dir[] = "/var/tmp/capsule-test.XXXXXX";
    char path[64], again[64];
    struct atomic_file f;
    struct error err = {0};
    struct stat a, b;
    AUTO_FD int fd = -1;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(setenv("TMPDIR", dir, 1), 0);
    fd = file_temp(&err);
    unsetenv("TMPDIR");
    assert_true(fd >= 0);
    assert_ok(fd_write_all(fd, "all of it", 9, "it", &err));
    snprintf(path, sizeof(path), "%s/out", dir);
    snprintf(again, sizeof(again), "%s/again", dir);
    if (atomic_file_adopt(&f, path, 0640, fd, &err) == 1) { /* not on an overlay, say */
        assert_int_equal(access(path, F_OK), -1);
        assert_ok(atomic_file_commit(&f, &err));
        assert_ok(stat(path, &a));
        assert_ok(fstat(fd, &b));
        assert_true(a.st_ino == b.st_ino && a.st_dev == b.st_dev && a.st_size == 9);
        assert_int_equal(a.st_mode & 07777, 0640);
        assert_int_equal(atomic_file_adopt(&f, again, 0640, fd, &err), 0);
    }
    assert_int_equal(access(again, F_OK), -1);
    assert_ok(tree_remove(dir, &err));
}

static void test_file_read_has_a_limit(void **state)
{
    AUTO_BUF struct buf b = BUF(10);
    struct error err = {0};

    (void)state;
    assert_int_equal(file_read("/proc/self/status", &b, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    assert_int_equal(file_read("/nowhere/at/all", &b, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
}

static void test_processes(void **state)
{
    AUTO_BUF struct buf out = BUF(1000);
    const char *say[] = {"sh", "-c", "echo hi; echo why >&2; exit 3", NULL};
    const char *fine[] = {"echo", "hello", NULL};
    const char *none[] = {"/nowhere/program", NULL};
    const char *slow[] = {"sleep", "20", NULL};
    struct proc_spec spec = {.argv = slow, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    struct proc p = PROC_NONE;
    struct error err = {0};
    int status;

    (void)state;
    assert_int_equal(proc_run(say, 5000, &out, &err), -1);
    assert_string_equal(err.msg, "sh: why (exit status 3)");
    buf_clear(&out);
    assert_ok(proc_run(fine, 5000, &out, &err));
    assert_string_equal(buf_cstr(&out), "hello\n");
    assert_int_equal(proc_run(none, 5000, NULL, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_int_equal(proc_run(slow, 100, NULL, &err), -1);
    assert_int_equal(err.kind, ERR_TIMEOUT);
    assert_ok(proc_start(&spec, &p, &err));
    assert_int_equal(proc_wait(&p, 10, &status, &err), 0);
    proc_signal(&p, SIGTERM);
    assert_int_equal(proc_wait(&p, 5000, &status, &err), 1);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static void xdg_directories(void **state)
{
    struct error err = {0};
    AUTO_FREE char *home = xstrdup(getenv("HOME") ? getenv("HOME") : "/"), *cache = NULL,
                   *data = NULL;

    (void)state;
    setenv("HOME", "/home/me", 1);
    setenv("XDG_CACHE_HOME", "/c", 1);
    setenv("XDG_DATA_HOME", "relative", 1); /* counts as unset */
    cache = xdg_dir(XDG_CACHE, "sub", "x", &err);
    data = xdg_dir(XDG_DATA, NULL, "x", &err);
    assert_string_equal(cache, "/c/capsule/sub");
    assert_string_equal(data, "/home/me/.local/share/capsule");
    unsetenv("HOME");
    assert_null(xdg_dir(XDG_DATA, NULL, "the thing", &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_string_equal(err.msg, "no place for the thing: HOME is not set");
    assert_string_equal(err.hint, "set HOME or XDG_DATA_HOME to a directory that can be written");
    setenv("HOME", home, 1);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("XDG_DATA_HOME");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_reads_as_one_sentence),
        cmocka_unit_test(test_buf_keeps_its_maximum),
        cmocka_unit_test(test_reader_stops_at_the_end),
        cmocka_unit_test(test_queue_wraps_and_is_bounded),
        cmocka_unit_test(test_base64_is_canonical),
        cmocka_unit_test(test_utf8_hex_and_numbers),
        cmocka_unit_test(test_atomic_file_is_all_or_nothing),
        cmocka_unit_test(test_unnamed_file_becomes_the_target_once),
        cmocka_unit_test(test_file_read_has_a_limit),
        cmocka_unit_test(test_processes),
        cmocka_unit_test(xdg_directories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
