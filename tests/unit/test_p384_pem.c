/* Private keys in files: what OpenSSL and we write is read, anything else is refused with a reason.
 */
#include "unit.h"

#include "crypto/ecdsa.h"
#include "crypto/p384_pem.h"
#include "crypto/pem.h"

/* The scalar 1 in PKCS#8, whose public key is the generator of the curve. */
static const char head[] = "3081b6020100301006072a8648ce3d020106052b8104002204819e30819b0201010430";
static const char one[] = "0000000000000000000000000000000000000000000000000000000000000000"
                          "00000000000000000000000000000001";
static const char generator[] = "04aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a38"
                                "5502f25dbf55296c3a545e3872760ab7"
                                "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a"
                                "60b1ce1d7e819d7a431d7c90ea0e5f";

static struct p384_key *read_pkcs8(const char *scalar, const char *point, const char *label,
                                   struct error *err)
{
    AUTO_FREE char *hex = xasprintf("%s%sa164036200%s", head, scalar, point);
    AUTO_BUF struct buf der = {0}, pem = BUF(4096);

    assert_int_equal(pem_encode(label, hex_slice(&der, hex), &pem), 0);
    return p384_key_from_pem(buf_slice(&pem), err);
}

static void reads_pkcs8(void **state)
{
    struct error err = {0};
    struct p384_key *key = read_pkcs8(one, generator, "PRIVATE KEY", &err);
    uint8_t point[P384_POINT_LEN];
    AUTO_BUF struct buf want = {0};

    (void)state;
    assert_non_null(key);
    p384_key_point(key, point);
    assert_memory_equal(point, hex_slice(&want, generator).ptr, P384_POINT_LEN);
    p384_key_free(key);
}

static void reads_what_it_generates(void **state)
{
    AUTO_BUF struct buf first = BUF_SECRET(P384_PEM_MAX), second = BUF_SECRET(P384_PEM_MAX);
    struct p384_key *key;
    struct error err;

    (void)state;
    assert_ok(p384_key_generate_pem(&first, &err));
    assert_ok(p384_key_generate_pem(&second, &err));
    assert_false(slice_equal(buf_slice(&first), buf_slice(&second)));
    assert_memory_equal(first.ptr, "-----BEGIN PRIVATE KEY-----\n", 28);
    key = p384_key_from_pem(buf_slice(&first), &err);
    assert_non_null(key);
    p384_key_free(key);
}

static void refuses_other_keys(void **state)
{
    struct ecdsa_key *p256;
    AUTO_BUF struct buf pem = BUF_SECRET(P384_PEM_MAX);
    struct error err = {0};
    AUTO_FREE char *zeros = xstrdup(one);

    (void)state;
    zeros[strlen(zeros) - 1] = '0';
    assert_null(read_pkcs8(zeros, generator, "PRIVATE KEY", &err)); /* 0 is no key */
    zeros[strlen(zeros) - 1] = '2';
    assert_null(read_pkcs8(zeros, generator, "PRIVATE KEY", &err)); /* of another point */
    assert_int_equal(err.kind, ERR_CRYPTO);
    assert_null(read_pkcs8(one, generator, "PUBLIC KEY", &err));
    assert_null(p384_key_from_pem(slice_str(""), &err));
    assert_int_equal(err.kind, ERR_INVALID);
    p256 = ecdsa_key_generate(ECDSA_P256, &err);
    assert_non_null(p256);
    assert_ok(ecdsa_key_to_pem(p256, &pem, &err));
    ecdsa_key_free(p256);
    assert_null(p384_key_from_pem(buf_slice(&pem), &err));
    assert_int_equal(err.kind, ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_pkcs8),
        cmocka_unit_test(reads_what_it_generates),
        cmocka_unit_test(refuses_other_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
