/* The development PKI: renewal of its levels, and the root that is made once. */
#include "unit.h"

#include "attest/devca.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "crypto/pem.h"
#include "nsm/soft.h"

#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A directory for a development root. */
struct fixture {
    char dir[64];
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));

    snprintf(f->dir, sizeof(f->dir), "/tmp/capsule-test-devca-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    log_setup(LOG_ERROR, LOG_TEXT);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};

    assert_ok(tree_remove(f->dir, &err));
    free(f);
    return 0;
}

#define MODULE "i-0123456789abcdef0-enc0190a1b2c3d4e5f6"

static void test_chain_is_renewed_in_time(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        int64_t after;                        /* seconds */
        bool leaf, instance, zonal, regional; /* renewed since the row before */
    } rows[] = {
        {0, true, true, true, true},
        {2 * 3600, false, false, false, false},
        {3 * 3600 - 299, true, false, false, false},
        {20 * 3600 + 3601, true, true, false, false},
        {86400 * 5 + 1, true, true, true, false},
        {86400 * 14 + 1, true, true, true, true},
    };
    int64_t start = clock_real_ns() / 1000000000;
    struct buf old[5] = {{0}};
    struct error err = {0};
    struct devca *ca = devca_open(f->dir, MODULE, &err);

    assert_non_null(ca);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct devca_identity id;
        const bool renewed[5] = {false, rows[i].regional, rows[i].zonal, rows[i].instance,
                                 rows[i].leaf};

        assert_ok(devca_identity(ca, start + rows[i].after, &id, &err));
        for (size_t k = 0; k < 5; k++) {
            struct slice now = k < 4 ? id.cabundle[k] : id.certificate;

            assert_true(now.len > 0 && now.len <= 1024);
            if (i > 0)
                assert_int_equal(!slice_equal(now, buf_slice(&old[k])), renewed[k]);
            buf_free(&old[k]);
            old[k] = BUF(1024);
            assert_int_equal(buf_append(&old[k], now.ptr, now.len), 0);
        }
    }
    for (size_t k = 0; k < 5; k++)
        buf_free(&old[k]);
    devca_free(ca);
}

static X509 *parse(struct slice der)
{
    const uint8_t *p = der.ptr;
    X509 *cert = d2i_X509(NULL, &p, (long)der.len);

    assert_non_null(cert);
    return cert;
}

/* A second opinion: OpenSSL, searching for a path by itself, finds just this sequence. */
static void test_chain_by_openssl(void **state)
{
    const struct fixture *f = *state;
    int64_t now = clock_real_ns() / 1000000000;
    struct error err = {0};
    struct devca *ca = devca_open(f->dir, MODULE, &err);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    STACK_OF(X509) *untrusted = sk_X509_new_null(), *path;
    struct devca_identity id;
    X509 *root, *leaf;

    assert_ok(devca_identity(ca, now, &id, &err));
    root = parse(id.cabundle[0]);
    leaf = parse(id.certificate);
    X509_STORE_add_cert(store, root);
    for (int i = DEVCA_BUNDLE - 1; i > 0; i--) /* any order will do for it */
        sk_X509_push(untrusted, parse(id.cabundle[i]));
    X509_STORE_CTX_init(ctx, store, leaf, untrusted);
    assert_int_equal(X509_verify_cert(ctx), 1);
    path = X509_STORE_CTX_get1_chain(ctx);
    assert_int_equal(sk_X509_num(path), DEVCA_BUNDLE + 1);
    for (int i = 0; i < DEVCA_BUNDLE; i++) {
        X509 *want = parse(id.cabundle[i]);

        assert_int_equal(X509_cmp(sk_X509_value(path, DEVCA_BUNDLE - i), want), 0);
        X509_free(want);
    }
    /* what devices leave out, and a strict reader would miss */
    assert_int_equal(X509_get_ext_by_NID(leaf, NID_subject_key_identifier, -1), -1);
    assert_int_equal(X509_get_ext_by_NID(leaf, NID_authority_key_identifier, -1), -1);
    assert_int_equal(X509_get_extension_flags(leaf) & EXFLAG_CA, 0);
    sk_X509_pop_free(path, X509_free);
    sk_X509_pop_free(untrusted, X509_free);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    X509_free(root);
    X509_free(leaf);
    devca_free(ca);
}

static void test_root_is_made_once_by_racing_processes(void **state)
{
    const struct fixture *f = *state;
    char *dir = xasprintf("%s/deep/race", f->dir), *key = xasprintf("%s/root.key", dir),
         *pem = xasprintf("%s/root.pem", dir);
    AUTO_BUF struct buf first = BUF(4096), second = BUF(4096);
    struct error err = {0};
    struct stat st;
    pid_t pid[6];

    for (size_t i = 0; i < ARRAY_LEN(pid); i++) {
        pid[i] = fork();
        if (pid[i] == 0) {
            struct devca *ca = devca_open(dir, MODULE, &err);
            struct devca_identity id;
            AUTO_BUF struct buf text = BUF(4096), der = BUF(1024);

            /* the root in use is the one that was published */
            _exit(!(ca && devca_identity(ca, clock_real_ns() / 1000000000, &id, &err) == 0 &&
                    file_read(pem, &text, &err) == 0 &&
                    pem_decode("CERTIFICATE", buf_slice(&text), &der, &err) == 0 &&
                    slice_equal(buf_slice(&der), id.cabundle[0])));
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(pid); i++) {
        int status;

        waitpid(pid[i], &status, 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(stat(key, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);

    /* half a root is made whole, a spoilt or open one refused */
    assert_ok(file_read(pem, &first, &err));
    unlink(pem);
    devca_free(devca_open(dir, MODULE, &err));
    assert_ok(file_read(pem, &second, &err));
    assert_false(slice_equal(buf_slice(&first), buf_slice(&second)));
    assert_ok(file_write_atomic(pem, buf_slice(&first), 0644, &err));
    assert_null(devca_open(dir, MODULE, &err));
    assert_non_null(strstr(err.msg, "does not belong to"));
    assert_non_null(strstr(err.hint, dir));
    assert_ok(file_write_atomic(pem, buf_slice(&second), 0644, &err));
    assert_int_equal(chmod(key, 0640), 0);
    assert_null(devca_open(dir, MODULE, &err));
    assert_int_equal(err.kind, ERR_DENIED);
    assert_int_equal(chmod(key, 0600), 0);
    assert_ok(file_write_atomic(key, slice_str("rubbish"), 0600, &err));
    assert_null(devca_open(dir, MODULE, &err));
    free(dir);
    free(key);
    free(pem);
}

static void test_module_ids(void **state)
{
    const struct fixture *f = *state;
    static const char *const bad[] = {
        "",
        "i-0123",
        "i-0123456789abcdef0-enc0190a1b2c3d4e5f",
        MODULE "0",
        "x-0123456789abcdef0-enc0190a1b2c3d4e5f6",
        "i-0123456789abcdeg0-enc0190a1b2c3d4e5f6",
        "i-0123456789abcdef0-enc0190a1b2c3d4e5g6",
        "i-0123456789abcdef0+enc0190a1b2c3d4e5f6",
    };
    struct error err = {0};

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_null(devca_open(f->dir, bad[i], &err));
    /* without one, it is drawn */
    const struct soft_nsm_config config = {.ca_dir = f->dir};
    struct soft_nsm *soft = soft_nsm_new(&config, &err);
    assert_non_null(soft);
    soft_nsm_free(soft);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain_is_renewed_in_time),
        cmocka_unit_test(test_chain_by_openssl),
        cmocka_unit_test(test_root_is_made_once_by_racing_processes),
        cmocka_unit_test(test_module_ids),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
