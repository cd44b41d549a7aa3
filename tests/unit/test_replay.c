#include "unit.h"
#include "vectors.h"

#include "api/replay.h"
#include "base/log.h"
#include "crypto/p384_box.h"

#include <fcntl.h>
#include <malloc.h>
#include <time.h>
#include <unistd.h>

static void fingerprint_of(uint32_t n, uint8_t *out)
{
    memset(out, 0, REPLAY_LEN);
    put_be32(out, n);
}

static enum replay_verdict take(struct replay *r, uint32_t n)
{
    uint8_t fingerprint[REPLAY_LEN];
    enum replay_verdict before;

    fingerprint_of(n, fingerprint);
    before = replay_check(r, fingerprint);
    assert_int_equal(replay_take(r, fingerprint), before);
    return before;
}

static void fingerprint_vector(void **state)
{
    json_t *root = vectors_load("encryption.json"), *key, *row;
    AUTO_BUF struct buf point = {0}, nonce = {0}, want = {0};
    uint8_t digest[REPLAY_LEN];
    size_t at;

    (void)state;
    row = json_array_get(json_object_get(root, "replay_fingerprint"), 0);
    json_array_foreach (json_object_get(root, "keys"), at, key)
        if (strcmp(vectors_str(key, "name"), vectors_str(row, "client")) == 0)
            vectors_hex(key, "public_sec1", &point);
    assert_int_equal(point.len, P384_POINT_LEN);
    assert_int_equal(vectors_hex(row, "gcm_nonce", &nonce).len, P384_BOX_NONCE_LEN);
    vectors_hex(row, "fingerprint", &want);
    replay_fingerprint(point.ptr, nonce.ptr, digest);
    assert_memory_equal(digest, want.ptr, sizeof(digest));
    json_decref(root);
}

static void each_is_taken_once(void **state)
{
    struct replay *r;
    struct error err;

    (void)state;
    assert_ok(replay_new(0, &r, &err));
    for (uint32_t n = 0; n < 20000; n++)
        assert_int_equal(take(r, n), REPLAY_NEW);
    for (uint32_t n = 0; n < 20000; n++)
        assert_int_equal(take(r, n), REPLAY_SEEN);
    assert_int_equal(replay_count(r), 20000);
    replay_free(r);
}

/* Asking leaves no trace, and every byte of a fingerprint counts. */
static void asking_remembers_nothing(void **state)
{
    uint8_t fingerprint[REPLAY_LEN] = {0};
    struct replay *r;
    struct error err;

    (void)state;
    assert_ok(replay_new(0, &r, &err));
    assert_int_equal(replay_check(r, fingerprint), REPLAY_NEW);
    assert_int_equal(replay_check(r, fingerprint), REPLAY_NEW);
    assert_int_equal(replay_take(r, fingerprint), REPLAY_NEW);
    for (size_t i = 0; i < sizeof(fingerprint); i++) {
        fingerprint[i] ^= 0x80;
        assert_int_equal(replay_check(r, fingerprint), REPLAY_NEW);
        fingerprint[i] ^= 0x80;
    }
    assert_int_equal(replay_check(r, fingerprint), REPLAY_SEEN);
    replay_free(r);
}

static void a_full_cache_fails_closed(void **state)
{
    struct replay *r;
    struct error err;

    (void)state;
    assert_ok(replay_new(100, &r, &err));
    for (uint32_t n = 0; n < 100; n++)
        assert_int_equal(take(r, n), REPLAY_NEW);
    for (uint32_t n = 100; n < 200; n++)
        assert_int_equal(take(r, n), REPLAY_FULL);
    for (uint32_t n = 0; n < 100; n++)
        assert_int_equal(take(r, n), REPLAY_SEEN);
    assert_int_equal(replay_count(r), 100);
    replay_free(r);
}

/* The log, line by line: each mark once, when it is reached. */
static void marks_are_logged_once(void **state)
{
    static const struct {
        uint32_t at;
        const char *percent;
    } marks[] = {{5, "percent=50"}, {8, "percent=75"}, {9, "percent=90"}, {10, "percent=100"}};
    int fds[2];
    struct replay *r;
    struct error err;
    char text[1024];

    (void)state;
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    assert_ok(replay_new(10, &r, &err));
    log_set_fd(fds[1]);
    for (uint32_t n = 1; n <= 12; n++) {
        const char *want = NULL;
        ssize_t len;

        for (size_t i = 0; i < ARRAY_LEN(marks); i++)
            if (marks[i].at == n)
                want = marks[i].percent;
        (void)take(r, n);
        len = read(fds[0], text, sizeof(text) - 1);
        assert_int_equal(len > 0, want != NULL);
        text[len > 0 ? len : 0] = '\0';
        if (want && (!strstr(text, want) || !strstr(text, "max=10")))
            fail_msg("at %u: %s", n, text);
    }
    log_set_fd(STDERR_FILENO);
    replay_free(r);
    close(fds[0]);
    close(fds[1]);
}

/* Of this thread: other work on the machine does not count. */
static int64_t cpu_ns(void)
{
    struct timespec t;

    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t), 0);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* To the default bound: the promises of the header about memory, and no call that stalls a loop. */
static void grows_to_the_default_bound(void **state)
{
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd, used;
    int64_t worst = 0, start = cpu_ns(), total;
    struct replay *r;
    struct error err;

    (void)state;
    assert_ok(replay_new(0, &r, &err));
    for (uint32_t n = 0; n < REPLAY_MAX; n++) {
        uint8_t fingerprint[REPLAY_LEN];
        int64_t t0 = cpu_ns(), t;

        fingerprint_of(n, fingerprint);
        assert_int_equal(replay_take(r, fingerprint), REPLAY_NEW);
        t = cpu_ns() - t0;
        worst = t > worst ? t : worst;
    }
    total = cpu_ns() - start;
    used = mallinfo2().uordblks + mallinfo2().hblkhd - before;
    print_message("# 1048576 entries: %zu KiB, %lld ns each, worst %lld us\n", used / 1024,
                  (long long)(total / REPLAY_MAX), (long long)(worst / 1000));
    assert_true(worst < total / 50); /* a table in one piece would take a tenth to grow */
    assert_int_equal(take(r, REPLAY_MAX), REPLAY_FULL);
    assert_int_equal(take(r, 7), REPLAY_SEEN);
    assert_true(used <= 33u << 20); /* 0 under sanitizers, which count elsewhere */
    replay_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fingerprint_vector),       cmocka_unit_test(each_is_taken_once),
        cmocka_unit_test(asking_remembers_nothing), cmocka_unit_test(a_full_cache_fails_closed),
        cmocka_unit_test(marks_are_logged_once),    cmocka_unit_test(grows_to_the_default_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
