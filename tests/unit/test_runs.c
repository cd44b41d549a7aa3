#include "unit.h"

#include "base/file.h"
#include "base/strv.h"
#include "container/frames.h"
#include "container/spec.h"
#include "runs/log.h"
#include "runs/record.h"

#include <stdio.h>
#include <unistd.h>

static void record_round_trip(void **state)
{
    struct run_record in = {.id = "0123456789ab",
                            .boot = "01234567-89ab-cdef-0123-456789abcdef",
                            .name = (char *)(uintptr_t) "web",
                            .image = (char *)(uintptr_t) "a \"b\"\n\xc3\xa9",
                            .cid = UINT32_MAX,
                            .grace_secs = 600,
                            .started_ms = 1700000000123,
                            .ended_ms = 1700000000456,
                            .status = 143,
                            .up = true,
                            .shell = {7, 1234567890123}};
    AUTO_RUN_RECORD struct run_record out = {0};
    AUTO_BUF struct buf text = BUF(RUN_RECORD_MAX);
    struct error err;

    (void)state;
    strv_add(&in.ports, "127.0.0.1:80:8080");
    strv_add(&in.ports, "[::1]:81:8080");
    assert_int_equal(run_record_format(&in, &text, &err), 0);
    assert_int_equal(run_record_parse(buf_slice(&text), &out, &err), 0);
    assert_string_equal(out.id, in.id);
    assert_string_equal(out.boot, in.boot);
    assert_string_equal(out.name, in.name);
    assert_string_equal(out.image, in.image);
    assert_string_equal(out.launcher, "");
    assert_int_equal(strv_len(out.ports), 2);
    assert_string_equal(out.ports[1], in.ports[1]);
    assert_int_equal(out.cid, in.cid);
    assert_int_equal(out.grace_secs, in.grace_secs);
    assert_int_equal(out.started_ms, in.started_ms);
    assert_int_equal(out.ended_ms, in.ended_ms);
    assert_int_equal(out.status, in.status);
    assert_true(out.up && !out.detached);
    assert_int_equal(out.shell.pid, 7);
    assert_int_equal(out.shell.start, in.shell.start);
    assert_int_equal(out.supervisor.pid, 0);
    strv_free(in.ports);
}

static void names(void **state)
{
    static const char *const good[] = {
        "a", "0", "web-1.a_B", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    static const char *const bad[] = {
        "",    "-a",
        ".",   "a b",
        "a/b", "\xc3\xa9",
        "a\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_int_equal(run_name_check(good[i], &err), 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(run_name_check(bad[i], &err), -1);
}

static void own_process_is_known_again(void **state)
{
    struct run_record r = {0};
    struct run_process me, other;
    int fd;

    (void)state;
    run_boot_id(r.boot);
    assert_true(run_process_of(getpid(), &me));
    fd = run_process_open(&r, &me);
    assert_true(fd >= 0);
    close(fd);
    other = me;
    other.start++;
    assert_int_equal(run_process_open(&r, &other), -1);
    r.boot[0] ^= 1;
    assert_int_equal(run_process_open(&r, &me), -1);
    assert_false(run_process_of(INT32_MAX, &other));
}

/* ---- the log ---- */

struct place {
    char dir[32];
};

static int make_place(void **state)
{
    struct place *p = xcalloc(1, sizeof(*p));

    snprintf(p->dir, sizeof(p->dir), "/tmp/capsule-log-XXXXXX");
    *state = p;
    return mkdtemp(p->dir) ? 0 : -1;
}

static int remove_place(void **state)
{
    struct place *p = *state;
    int rc = tree_remove(p->dir, NULL);

    free(p);
    return rc;
}

/* Has `len` bytes of lines of 16 bytes, "N" padded with x, kept as a log. */
static void keep(const char *dir, size_t len)
{
    AUTO_FD int lock = run_log_lock(dir, NULL);
    AUTO_FD int in = file_temp(NULL);
    AUTO_FREE char *text = xmalloc(len + 32);

    assert_true(lock >= 0 && in >= 0);
    for (size_t at = 0; at < len; at += 16) {
        int n = snprintf(text + at, 17, "%zu", at / 16);

        memset(text + at + n, 'x', (size_t)(15 - n));
        text[at + 15] = '\n';
    }
    assert_int_equal(fd_write_all(in, text, len, "text", NULL), 0);
    assert_int_equal(lseek(in, 0, SEEK_SET), 0);
    run_log_keep(dir, in);
}

static size_t read_all(struct run_log *l, char *out, size_t size)
{
    size_t len = 0;
    ssize_t n;

    while ((n = run_log_read(l, out + len, size - len, NULL)) > 0)
        len += (size_t)n;
    assert_int_equal(n, 0);
    out[len] = '\0';
    return len;
}

static void log_keeps_the_newest(void **state)
{
    const struct place *p = *state;
    AUTO_RUN_LOG struct run_log l = RUN_LOG_NONE;
    const size_t total = (size_t)RUN_LOG_PIECE * (RUN_LOG_PIECES + 2) + 1600;
    AUTO_FREE char *out = xmalloc(total);
    size_t len;

    keep(p->dir, total);
    assert_int_equal(run_log_open(p->dir, &l, NULL), 0);
    assert_false(run_log_grows(&l));
    len = read_all(&l, out, total);
    /* Pieces 3 to 10 are there; the line at the cut is whole, but no reader can know that. */
    assert_memory_equal(out, "[capsule: 3145744 bytes of log dropped]\n", 40);
    assert_int_equal(len, 40 + total - 3145744);
    assert_int_equal(strtoul(out + 40, NULL, 10), 3145744 / 16);
    assert_memory_equal(out + len - 5, "xxxx\n", 5);
    run_log_close(&l);
    assert_int_equal(run_log_open(p->dir, &l, NULL), 0);
    assert_int_equal(run_log_seek_tail(&l, 100000, NULL), 0);
    len = read_all(&l, out, total);
    assert_int_equal(len, 100000 * 16);
    assert_int_equal(strtoul(out, NULL, 10), total / 16 - 100000);
}

static void log_tail_of_little(void **state)
{
    const struct place *p = *state;
    AUTO_RUN_LOG struct run_log l = RUN_LOG_NONE;
    char out[4096];

    assert_int_equal(run_log_open(p->dir, &l, NULL), -1);
    keep(p->dir, 40); /* two lines and a half */
    assert_int_equal(run_log_open(p->dir, &l, NULL), 0);
    assert_int_equal(run_log_seek_tail(&l, 2, NULL), 0);
    assert_int_equal(read_all(&l, out, sizeof(out) - 1), 24);
    run_log_close(&l);
    assert_int_equal(run_log_open(p->dir, &l, NULL), 0);
    assert_int_equal(run_log_seek_tail(&l, 3, NULL), 0);
    assert_int_equal(read_all(&l, out, sizeof(out) - 1), 40);
    run_log_close(&l);
    assert_int_equal(run_log_open(p->dir, &l, NULL), 0);
    assert_int_equal(run_log_seek_tail(&l, 0, NULL), 0);
    assert_int_equal(read_all(&l, out, sizeof(out) - 1), 0);
}

/* ---- frames ---- */

static void take(void *arg, int stream, struct slice bytes)
{
    struct buf *out = arg;

    assert_int_equal(buf_printf(out, "%d%.*s", stream, (int)bytes.len, (const char *)bytes.ptr), 0);
}

static void frames_of_any_cut(void **state)
{
    static const uint8_t bytes[] =
        "\1\0\0\0\0\0\0\2ab\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\1c\0\0\0\0\0\0\0\1d";
    const size_t len = sizeof(bytes) - 1;
    struct error err;

    (void)state;
    for (size_t cut = 0; cut <= len; cut++) {
        AUTO_BUF struct buf out = BUF(64);
        struct container_frames f = {0};

        assert_int_equal(container_frames_feed(&f, slice_of(bytes, cut), take, &out, &err), 0);
        assert_int_equal(
            container_frames_feed(&f, slice_of(bytes + cut, len - cut), take, &out, &err), 0);
        assert_string_equal(buf_cstr(&out), cut == 9 ? "1a1b2c1d" : "1ab2c1d");
        assert_true(container_frames_whole(&f));
    }
}

static void frames_that_are_none(void **state)
{
    static const char *const bad[] = {"\4\0\0\0\0\0\0\1", "\1\1\0\0\0\0\0\1", "\1\0\0\1\0\0\0\1"};
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct container_frames f = {0};

        assert_int_equal(container_frames_feed(&f, slice_of(bad[i], 8), take, NULL, &err), -1);
    }
}

static void binds_are_structured(void **state)
{
    static const char *const none[] = {NULL};
    const struct container_bind bind = {"/srv/a:b", "/mnt/capsule-hostfs-data/a"};
    const struct container_spec spec = {.image = "app:1",
                                        .command = none,
                                        .run = "0123456789ab",
                                        .name = "",
                                        .binds = &bind,
                                        .bind_count = 1};
    const struct container_engine engine = {0};
    AUTO_BUF struct buf out = BUF(65536);

    (void)state;
    assert_int_equal(container_spec_format(&spec, &engine, &out, NULL), 0);
    assert_non_null(strstr(buf_cstr(&out),
                           "\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/srv/a:b\",\"Target\":"
                           "\"/mnt/capsule-hostfs-data/a\",\"ReadOnly\":false,"
                           "\"BindOptions\":{\"Propagation\":\"rprivate\"}}]"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record_round_trip),
        cmocka_unit_test(names),
        cmocka_unit_test(own_process_is_known_again),
        cmocka_unit_test_setup_teardown(log_keeps_the_newest, make_place, remove_place),
        cmocka_unit_test_setup_teardown(log_tail_of_little, make_place, remove_place),
        cmocka_unit_test(frames_of_any_cut),
        cmocka_unit_test(frames_that_are_none),
        cmocka_unit_test(binds_are_structured),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
