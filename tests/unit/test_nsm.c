#include "unit.h"
#include "vectors.h"

#include "attest/verify.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "crypto/hash.h"
#include "crypto/pem.h"
#include "nsm/nsm.h"
#include "nsm/soft.h"
#include "nsm_stream.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The vectors, and a directory for a development root. */
struct fixture {
    json_t *root;
    char dir[64];
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));

    f->root = vectors_load("nsm.json");
    snprintf(f->dir, sizeof(f->dir), "/tmp/capsule-test-nsm-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    log_setup(LOG_ERROR, LOG_TEXT);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};

    json_decref(f->root);
    assert_ok(tree_remove(f->dir, &err));
    free(f);
    return 0;
}

static void pcr_of(const json_t *pcrs, const char *index, uint8_t out[NSM_PCR_LEN])
{
    assert_int_equal(hex_decode(slice_str(vectors_str(pcrs, index)), out, NSM_PCR_LEN), 0);
}

static const struct soft_nsm_config plain;

/* A soft NSM in the vectors' initial state. */
static struct soft_nsm *fresh(const struct fixture *f, struct soft_nsm_config config)
{
    json_t *initial = json_object_get(f->root, "initial_state");
    json_t *pcrs = json_object_get(initial, "pcrs");
    struct soft_nsm *soft;
    struct error err = {0};

    config.ca_dir = f->dir;
    config.role_arn = vectors_str(initial, "role_arn");
    config.instance_id = vectors_str(initial, "instance_id");
    config.module_id = vectors_str(initial, "module_id");
    pcr_of(pcrs, "0", config.pcr0);
    pcr_of(pcrs, "1", config.pcr1);
    pcr_of(pcrs, "2", config.pcr2);
    pcr_of(pcrs, "8", config.pcr8);
    soft = soft_nsm_new(&config, &err);
    if (!soft)
        fail_msg("%s", err.msg);
    return soft;
}

static void assert_answer(struct soft_nsm *soft, const json_t *row, const char *what)
{
    AUTO_BUF struct buf request = {0}, want = {0}, got = BUF(NSM_ANSWER_MAX);

    soft_nsm_answer(soft, vectors_hex(row, "request_hex", &request), &got);
    vectors_hex(row, "response_hex", &want);
    if (!slice_equal(buf_slice(&got), buf_slice(&want))) {
        char *hex = hex_encode_dup("", buf_slice(&got));

        fail_msg("%s: answer %s", what, hex);
    }
}

static void test_transcript(void **state)
{
    const struct fixture *f = *state;
    struct soft_nsm *soft = fresh(f, plain);
    json_t *row;
    const char *index;
    size_t at;

    json_array_foreach (json_object_get(f->root, "transcript"), at, row) {
        char *what = xasprintf("request %zu", at);

        assert_answer(soft, row, what);
        free(what);
    }
    assert_int_equal(at, 36);
    json_object_foreach (json_object_get(f->root, "final_pcrs"), index, row) {
        const struct nsm_request request = {NSM_DESCRIBE_PCR, .index = (uint16_t)atoi(index)};
        AUTO_BUF struct buf bytes = BUF(NSM_REQUEST_MAX), got = BUF(NSM_ANSWER_MAX), want = {0};
        struct nsm_answer answer;
        struct error err = {0};

        assert_ok(nsm_request_encode(&request, &bytes, &err));
        soft_nsm_answer(soft, buf_slice(&bytes), &got);
        assert_ok(nsm_answer_decode(buf_slice(&got), NSM_DESCRIBE_PCR, &answer, &err));
        hex_slice(&want, json_string_value(row));
        assert_true(slice_equal(answer.bytes, buf_slice(&want)));
    }
    soft_nsm_free(soft);
}

static void test_malformed_requests(void **state)
{
    const struct fixture *f = *state;
    struct soft_nsm *soft = fresh(f, plain);
    static const char *const more[] = {
        "a16b4465736372696265504352a265696e646578006178f6",   /* a parameter too many */
        "a16b4174746573746174696f6ea169757365725f64617461f6", /* two missing */
        ("a16b4174746573746174696f6ea369757365725f646174616178656e6f6e6365f66a7075626c69635f6b6579f"
         "6"),
        "a16b4465736372696265504352a265696e6465780065696e64657800", /* a key twice */
        "a16b446573637269626550435280",
        "a100a0",
        "f6",
    };
    json_t *row;
    size_t at;

    json_array_foreach (json_object_get(f->root, "malformed_requests"), at, row)
        assert_answer(soft, row, vectors_str(row, "name"));
    for (size_t i = 0; i < ARRAY_LEN(more); i++) {
        AUTO_BUF struct buf request = {0}, got = BUF(NSM_ANSWER_MAX);
        struct nsm_answer answer;
        struct error err = {0};

        soft_nsm_answer(soft, hex_slice(&request, more[i]), &got);
        assert_ok(nsm_answer_decode(buf_slice(&got), NSM_DESCRIBE_PCR, &answer, &err));
        assert_int_equal(answer.status, NSM_INVALID_OPERATION);
    }
    soft_nsm_free(soft);
}

/* ---- the client over a socket pair, with the soft NSM at the other end ---- */

struct server {
    struct soft_nsm *soft;
    int dials;
    pthread_t thread[8];
    int fd[8];
};

static void *serve(void *arg)
{
    int fd = (int)(intptr_t)((void **)arg)[1];
    struct error err = {0};

    soft_nsm_serve(((void **)arg)[0], fd, &err);
    close(fd);
    free(arg);
    return NULL;
}

static int dial(void *arg, struct error *err)
{
    struct server *s = arg;
    void **job = xcalloc(2, sizeof(*job));
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_sys(err, errno, "socketpair");
    job[0] = s->soft;
    job[1] = (void *)(intptr_t)pair[1];
    pthread_create(&s->thread[s->dials++], NULL, serve, job);
    return pair[0];
}

static void stop(struct server *s, struct nsm *nsm)
{
    nsm_close(nsm);
    for (int i = 0; i < s->dials; i++)
        pthread_join(s->thread[i], NULL);
    soft_nsm_free(s->soft);
}

static void load_anchor(const struct fixture *f, struct buf *der, struct attest_anchor *anchor)
{
    AUTO_BUF struct buf pem = BUF(4096);
    char *path = xasprintf("%s/root.pem", f->dir);
    struct error err = {0};

    *der = BUF(1024);
    assert_ok(file_read(path, &pem, &err));
    assert_ok(pem_decode("CERTIFICATE", buf_slice(&pem), der, &err));
    *anchor = (struct attest_anchor){.name = "the development root", .der = buf_slice(der)};
    free(path);
}

static void test_client_and_documents(void **state)
{
    const struct fixture *f = *state;
    struct server s = {.soft = fresh(f, (struct soft_nsm_config){.form = SOFT_NSM_ALTERNATE})};
    struct nsm *nsm = nsm_open_stream(dial, &s, 5000);
    struct nsm_description d;
    uint8_t value[NSM_PCR_LEN], want[NSM_PCR_LEN], random[1000], pcr0[NSM_PCR_LEN];
    struct error err = {0};
    struct attest_anchor anchor;
    AUTO_BUF struct buf der = {0};
    bool locked;

    assert_ok(nsm_describe(nsm, &d, &err));
    assert_int_equal(d.locked, 0xffff);
    assert_ok(nsm_describe_pcr(nsm, 0, &locked, pcr0, &err));
    assert_true(locked);
    assert_ok(nsm_extend_pcr(nsm, 16, slice_str("first"), value, &err));
    memset(want, 0, sizeof(want));
    {
        AUTO_HASH struct hash *h = hash_new(HASH_SHA384);

        hash_update(h, slice_of(want, sizeof(want)));
        hash_update(h, slice_str("first"));
        hash_final(h, want);
    }
    assert_memory_equal(value, want, sizeof(want));
    assert_ok(nsm_lock_pcr(nsm, 16, &err));
    assert_int_equal(nsm_extend_pcr(nsm, 16, slice_str("x"), NULL, &err), -1);
    assert_int_equal(err.kind, ERR_DENIED);
    assert_int_equal(nsm_describe_pcr(nsm, 32, &locked, value, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_ok(nsm_lock_pcrs(nsm, 18, &err));
    assert_int_equal(nsm_lock_pcrs(nsm, 33, &err), -1);
    memset(random, 0, sizeof(random));
    assert_ok(nsm_random(nsm, random, sizeof(random), &err));
    assert_memory_not_equal(random, random + 500, 500);

    for (int form = 0; form < 2; form++) {
        AUTO_BUF struct buf doc = BUF(NSM_ANSWER_MAX);
        struct attest_policy policy = {.verify_time = clock_real_ns() / 1000000000,
                                       .limit_age = true,
                                       .max_age_ms = 60000,
                                       .nonce = {true, slice_str("fresh")},
                                       .user_data = {true, {0}},
                                       .public_key = {true, slice_str("key")}};
        struct attest_document read;
        enum attest_failure why;

        assert_ok(attest_policy_expect_pcr(&policy, 0, pcr0, &err));
        assert_ok(attest_policy_expect_pcr(&policy, 16, want, &err));
        assert_ok(nsm_attest(nsm, nsm_option_of((struct slice){0}),
                             nsm_option_of(slice_str("fresh")), nsm_option_of(slice_str("key")),
                             &doc, &err));
        load_anchor(f, &der, &anchor);
        if (attest_verify(buf_slice(&doc), &anchor, &policy, NULL, &read, &why, &err) < 0)
            fail_msg("%s: %s", attest_failure_name(why), err.msg);
        assert_int_equal(__builtin_popcount(read.pcrs), 18);
        assert_int_equal(read.cabundle_len, 4);
        /* 84 44 a1013822 a0 59 xxxx: then the payload */
        assert_int_equal(doc.ptr[10], form ? 0xbf : 0xa9);
        policy.verify_time += 3 * 3600 + 10;
        policy.limit_age = false;
        attest_verify(buf_slice(&doc), &anchor, &policy, NULL, &read, &why, &err);
        assert_int_equal(why, ATTEST_CHAIN_VALIDITY);
        buf_free(&der);
    }
    assert_int_equal(s.dials, 1);
    stop(&s, nsm);
}

static void test_sizes(void **state)
{
    const struct fixture *f = *state;
    static uint8_t big[2000];
    struct server s = {.soft = fresh(f, plain)};
    struct nsm *nsm = nsm_open_stream(dial, &s, 5000);
    struct nsm_option none = {0};
    AUTO_BUF struct buf doc = BUF(NSM_ANSWER_MAX);
    struct error err = {0};

    assert_ok(nsm_attest(nsm, nsm_option_of(slice_of(big, 512)), nsm_option_of(slice_of(big, 512)),
                         nsm_option_of(slice_of(big, 1024)), &doc, &err));
    assert_int_equal(nsm_attest(nsm, nsm_option_of(slice_of(big, 513)), none, none, &doc, &err),
                     -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    assert_string_equal(err.msg, "user_data has 513 bytes; 0 to 512 are allowed");
    assert_int_equal(nsm_attest(nsm, none, nsm_option_of(slice_of(big, 513)), none, &doc, &err),
                     -1);
    assert_int_equal(nsm_attest(nsm, none, none, nsm_option_of(slice_of(big, 1025)), &doc, &err),
                     -1);
    assert_int_equal(nsm_attest(nsm, none, none, nsm_option_of(slice_of(big, 0)), &doc, &err), -1);
    assert_int_equal(nsm_extend_pcr(nsm, 20, slice_of(doc.ptr, 4080), NULL, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    stop(&s, nsm);
}

/* The module's own limits, by profile, where the client does not stand in the way. */
static void test_profiles(void **state)
{
    const struct fixture *f = *state;
    static uint8_t big[2000];
    static const struct {
        size_t user_data, nonce, public_key;
        enum nsm_status strict, device;
    } rows[] = {
        {512, 512, 1024, NSM_OK, NSM_OK},
        {513, 0, 1, NSM_INPUT_TOO_LARGE, NSM_OK},
        {0, 513, 1, NSM_INPUT_TOO_LARGE, NSM_OK},
        {0, 0, 1025, NSM_INPUT_TOO_LARGE, NSM_OK},
        {0, 0, 0, NSM_OK, NSM_OK},
        {1024, 1024, 1990, NSM_INPUT_TOO_LARGE, NSM_OK},
    };

    for (int profile = SOFT_NSM_STRICT; profile <= SOFT_NSM_DEVICE; profile++) {
        struct soft_nsm *soft =
            fresh(f, (struct soft_nsm_config){.profile = (enum soft_nsm_profile)profile});

        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            const struct nsm_request request = {
                .op = NSM_ATTESTATION,
                .user_data = nsm_option_of(slice_of(big, rows[i].user_data)),
                .nonce = nsm_option_of(slice_of(big, rows[i].nonce)),
                .public_key = nsm_option_of(slice_of(big, rows[i].public_key))};
            AUTO_BUF struct buf bytes = BUF(8192), got = BUF(NSM_ANSWER_MAX);
            struct nsm_answer answer;
            struct error err = {0};

            if (nsm_request_encode(&request, &bytes, &err) < 0)
                continue;
            soft_nsm_answer(soft, buf_slice(&bytes), &got);
            assert_ok(nsm_answer_decode(buf_slice(&got), NSM_ATTESTATION, &answer, &err));
            assert_int_equal(answer.status, profile ? rows[i].device : rows[i].strict);
        }
        soft_nsm_free(soft);
    }
}

/* Debug mode: PCR0, 1, 2 and 8 are zero, 3 and 4 are not, and verifiers notice. */
static void test_debug_mode(void **state)
{
    const struct fixture *f = *state;
    struct server s = {.soft = fresh(f, (struct soft_nsm_config){.debug = true})};
    struct nsm *nsm = nsm_open_stream(dial, &s, 5000);
    AUTO_BUF struct buf doc = BUF(NSM_ANSWER_MAX), der = {0};
    struct attest_policy policy = {.verify_time = clock_real_ns() / 1000000000};
    struct attest_anchor anchor;
    struct attest_document read;
    enum attest_failure why;
    struct nsm_option none = {0};
    static const uint8_t zero[NSM_PCR_LEN];
    struct error err = {0};

    load_anchor(f, &der, &anchor);
    assert_ok(nsm_attest(nsm, none, none, none, &doc, &err));
    attest_verify(buf_slice(&doc), &anchor, &policy, NULL, &read, &why, &err);
    assert_int_equal(why, ATTEST_DEBUG);
    policy.allow_debug = true;
    assert_ok(attest_verify(buf_slice(&doc), &anchor, &policy, NULL, &read, &why, &err));
    for (int i = 0; i < 16; i++)
        assert_int_equal(memcmp(read.pcr[i].ptr, zero, NSM_PCR_LEN) != 0, i == 3 || i == 4);
    stop(&s, nsm);
}

/* Lengths that are no request are answered without reading on, then the connection ends. */
static void test_stream_lengths(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        uint32_t len;
        enum nsm_status want;
    } rows[] = {
        {0, NSM_INVALID_OPERATION}, {4097, NSM_INPUT_TOO_LARGE}, {UINT32_MAX, NSM_INPUT_TOO_LARGE}};
    struct server s = {.soft = fresh(f, plain)};

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct error err = {0};
        int fd = dial(&s, &err);
        uint8_t head[4], body[64];
        struct nsm_answer answer;

        put_be32(head, rows[i].len);
        assert_ok(fd_write_all(fd, head, 4, "test", &err));
        assert_ok(fd_read_full(fd, head, 4, "test", &err));
        assert_true(get_be32(head) <= sizeof(body));
        assert_ok(fd_read_full(fd, body, get_be32(head), "test", &err));
        assert_ok(nsm_answer_decode(slice_of(body, get_be32(head)), NSM_LOCK_PCR, &answer, &err));
        assert_int_equal(answer.status, rows[i].want);
        assert_int_equal(read(fd, head, 1), 0);
        close(fd);
    }
    stop(&s, NULL);
}

/* A module that answers what it likes: `bytes` as often as asked. */
struct liar {
    struct slice bytes;
    int fd;
    bool silent;
    int dials;
};

static void *lie(void *arg)
{
    struct liar *l = arg;
    struct error err = {0};
    uint8_t head[4], request[NSM_REQUEST_MAX];

    while (fd_read_full(l->fd, head, 4, "liar", &err) == 0 &&
           fd_read_full(l->fd, request, get_be32(head), "liar", &err) == 0)
        if (!l->silent && fd_write_all(l->fd, l->bytes.ptr, l->bytes.len, "liar", &err) < 0)
            break;
    close(l->fd);
    return NULL;
}

static pthread_t liar_thread;

static int dial_liar(void *arg, struct error *err)
{
    struct liar *l = arg;
    int pair[2];

    if (l->dials++ > 0)
        return error_set(err, ERR_NET, "no second time");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    l->fd = pair[1];
    pthread_create(&liar_thread, NULL, lie, l);
    return pair[0];
}

static void test_hostile_module(void **state)
{
    /* framed answers: empty randomness; a length of 0; one too long; an endless promise */
    static const char *const frames[] = {
        "00000014"
        "a16947657452616e646f6da16672616e646f6d40",
        "00000000",
        "00003001",
        "ffffffff",
        "00000001"
        "ff",
        "00000008"
        "674c6f636b504352",
    };
    uint8_t out[32];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(frames); i++) {
        AUTO_BUF struct buf bytes = {0};
        struct liar l = {.bytes = hex_slice(&bytes, frames[i])};
        struct nsm *nsm = nsm_open_stream(dial_liar, &l, 5000);
        struct error err = {0};

        assert_int_equal(nsm_random(nsm, out, sizeof(out), &err), -1);
        assert_true(err.msg[0] != '\0');
        if (i == 0)
            assert_string_equal(err.msg, "the NSM gives no random bytes");
        nsm_close(nsm);
        pthread_join(liar_thread, NULL);
    }
}

static void *cancel_soon(void *nsm)
{
    usleep(50000);
    nsm_cancel(nsm);
    return NULL;
}

static void test_cancel_ends_the_call_under_way_and_later_ones(void **state)
{
    struct liar l = {.silent = true};
    struct nsm *nsm = nsm_open_stream(dial_liar, &l, 60000);
    int64_t start = clock_mono_ms();
    struct nsm_description d;
    struct error err = {0};
    pthread_t canceller;

    (void)state;
    assert_int_equal(pthread_create(&canceller, NULL, cancel_soon, nsm), 0);
    assert_int_equal(nsm_describe(nsm, &d, &err), -1);
    assert_int_equal(err.sys, ECANCELED);
    assert_int_equal(nsm_describe(nsm, &d, &err), -1);
    assert_int_equal(l.dials, 1);
    assert_true(clock_mono_ms() - start < 20000);
    pthread_join(canceller, NULL);
    nsm_close(nsm);
    pthread_join(liar_thread, NULL);
}

static void test_silent_module_times_out(void **state)
{
    struct liar l = {.silent = true};
    struct nsm *nsm = nsm_open_stream(dial_liar, &l, 100);
    struct nsm_description d;
    struct error err = {0};
    int64_t start = clock_mono_ms();

    (void)state;
    assert_int_equal(nsm_describe(nsm, &d, &err), -1);
    assert_int_equal(err.kind, ERR_TIMEOUT);
    assert_true(clock_mono_ms() - start < 3000);
    /* the connection is given up, so the next request dials anew */
    assert_int_equal(nsm_describe(nsm, &d, &err), -1);
    assert_int_equal(l.dials, 2);
    nsm_close(nsm);
    pthread_join(liar_thread, NULL);
}

/* ---- many threads ---- */

#define EXTENDS 25

static void *extend_often(void *arg)
{
    struct nsm *nsm = arg;
    intptr_t failed = 0;
    uint8_t random[16];

    for (int i = 0; i < EXTENDS; i++) {
        failed |= nsm_extend_pcr(nsm, 16, slice_str("x"), NULL, NULL) < 0;
        failed |= nsm_random(nsm, random, sizeof(random), NULL) < 0;
    }
    return (void *)failed;
}

/* Two clients, two threads each: no request is lost, mixed up or carried out twice. */
static void test_many_threads(void **state)
{
    const struct fixture *f = *state;
    struct server s = {.soft = fresh(f, plain)};
    struct nsm *nsm[2];
    uint8_t want[NSM_PCR_LEN] = {0}, got[NSM_PCR_LEN];
    struct error err = {0};
    pthread_t thread[4];
    void *failed;
    bool locked;

    for (size_t i = 0; i < 2; i++) {
        nsm[i] = nsm_open_stream(dial, &s, 20000);
        assert_ok(nsm_describe_pcr(nsm[i], 16, &locked, got, &err)); /* dials, one after another */
    }
    for (size_t i = 0; i < ARRAY_LEN(thread); i++)
        pthread_create(&thread[i], NULL, extend_often, nsm[i % 2]);
    for (size_t i = 0; i < ARRAY_LEN(thread); i++) {
        pthread_join(thread[i], &failed);
        assert_null(failed);
    }
    for (size_t i = 0; i < ARRAY_LEN(thread) * EXTENDS; i++) {
        AUTO_HASH struct hash *h = hash_new(HASH_SHA384);

        hash_update(h, slice_of(want, sizeof(want)));
        hash_update(h, slice_str("x"));
        hash_final(h, want);
    }
    assert_ok(nsm_describe_pcr(nsm[0], 16, &locked, got, &err));
    assert_memory_equal(got, want, sizeof(want));
    nsm_close(nsm[0]);
    stop(&s, nsm[1]);
}

/* ---- the device: its driver's side of the ioctl is played here, by the soft NSM ---- */

static struct {
    struct soft_nsm *soft; /* NULL: the ioctl is nobody's business */
    int fail;              /* errno to answer with */
    size_t cut;            /* cut the answer to so many bytes, as the driver does */
    int calls;
} device;

static uint64_t word_at(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* Takes the place of the C library's for the whole test program. */
int ioctl(int fd, unsigned long number, ...)
{
    va_list ap;
    uint8_t *arg;

    va_start(ap, number);
    arg = va_arg(ap, uint8_t *);
    va_end(ap);
    if (!device.soft || number != 0xc0200a00)
        return (int)syscall(SYS_ioctl, fd, number, arg);
    device.calls++;
    if (device.fail || word_at(arg + 8) > 0x1000) {
        errno = device.fail ? device.fail : EMSGSIZE;
        return -1;
    }
    /* request address and length, answer address and capacity: spec/nsm.md section 1 */
    uint64_t from = word_at(arg), from_len = word_at(arg + 8), to = word_at(arg + 16), len;
    AUTO_BUF struct buf answer = BUF(NSM_ANSWER_MAX);

    assert_int_equal(word_at(arg + 24), 0x3000);
    soft_nsm_answer(device.soft, slice_of((const void *)(uintptr_t)from, from_len), &answer);
    len = device.cut && device.cut < answer.len ? device.cut : answer.len;
    memcpy((void *)(uintptr_t)to, answer.ptr, len);
    memcpy(arg + 24, &len, sizeof(len));
    return 0;
}

static void test_device(void **state)
{
    const struct fixture *f = *state;
    struct error err = {0};
    struct nsm *nsm = nsm_open_device("/dev/null", &err);
    AUTO_BUF struct buf doc = BUF(NSM_ANSWER_MAX);
    struct nsm_option none = {0};
    struct nsm_description d;
    uint8_t random[300];

    assert_non_null(nsm);
    device.soft = fresh(f, plain);
    assert_ok(nsm_describe(nsm, &d, &err));
    assert_string_equal(d.digest, "SHA384");
    assert_ok(nsm_attest(nsm, none, none, none, &doc, &err));
    assert_true(doc.len > 2000);
    assert_ok(nsm_random(nsm, random, sizeof(random), &err));
    assert_int_equal(device.calls, 4);
    device.cut = 100; /* without a word, as the driver does it */
    assert_int_equal(nsm_describe(nsm, &d, &err), -1);
    assert_int_equal(err.kind, ERR_INTERNAL);
    device.cut = 0;
    device.fail = EMSGSIZE;
    assert_int_equal(nsm_describe(nsm, &d, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    device.fail = ETIMEDOUT;
    assert_int_equal(nsm_describe(nsm, &d, &err), -1);
    assert_int_equal(err.kind, ERR_INTERNAL);
    assert_int_equal(err.sys, ETIMEDOUT);
    device.fail = 0;
    soft_nsm_free(device.soft);
    device.soft = NULL;
    nsm_close(nsm);
}

static void test_device_that_is_not_there(void **state)
{
    struct error err = {0};

    (void)state;
    assert_null(nsm_open_device("/dev/no-such-nsm", &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    /* a device of another driver refuses the ioctl */
    struct nsm *nsm = nsm_open_device("/dev/null", &err);
    struct nsm_description d;
    assert_non_null(nsm);
    assert_int_equal(nsm_describe(nsm, &d, &err), -1);
    assert_int_equal(err.kind, ERR_INTERNAL);
    nsm_close(nsm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transcript),
        cmocka_unit_test(test_malformed_requests),
        cmocka_unit_test(test_client_and_documents),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_profiles),
        cmocka_unit_test(test_debug_mode),
        cmocka_unit_test(test_stream_lengths),
        cmocka_unit_test(test_hostile_module),
        cmocka_unit_test(test_silent_module_times_out),
        cmocka_unit_test(test_cancel_ends_the_call_under_way_and_later_ones),
        cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_device),
        cmocka_unit_test(test_device_that_is_not_there),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
