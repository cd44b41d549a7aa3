#include "unit.h"
#include "vectors.h"

#include "crypto/entropy.h"
#include "crypto/eth.h"
#include "crypto/hash.h"
#include "crypto/keccak.h"
#include "crypto/p384.h"
#include "crypto/pem.h"
#include "crypto/secp256k1.h"

#include <string.h>

static void assert_hex(const json_t *object, const char *key, const uint8_t *got, size_t len)
{
    AUTO_BUF struct buf want = {0};

    vectors_hex(object, key, &want);
    assert_int_equal(len, want.len);
    assert_memory_equal(got, want.ptr, len);
}

static void test_keccak256(void **state)
{
    json_t *root = vectors_load("eth.json"), *row;
    size_t at;

    (void)state;
    json_array_foreach (json_object_get(root, "keccak256"), at, row) {
        AUTO_BUF struct buf input = {0};
        struct keccak256 k = KECCAK256_INIT;
        uint8_t digest[KECCAK256_LEN];

        vectors_hex(row, "input_hex", &input);
        keccak256_once(buf_slice(&input), digest);
        assert_hex(row, "digest", digest, sizeof(digest));
        /* in pieces of seven bytes */
        for (size_t i = 0; i < input.len; i += 7)
            keccak256_update(&k, slice_of(input.ptr + i, input.len - i < 7 ? input.len - i : 7));
        keccak256_final(&k, digest);
        assert_hex(row, "digest", digest, sizeof(digest));
    }
    assert_true(at > 5);
    json_decref(root);
}

static void test_ethereum_keys(void **state)
{
    json_t *root = vectors_load("eth.json"), *row;
    size_t at;

    (void)state;
    json_array_foreach (json_object_get(root, "keys"), at, row) {
        AUTO_BUF struct buf secret = {0}, pem = BUF(400), der = BUF(400);
        uint8_t point[K256_POINT_LEN], spki[K256_SPKI_LEN];
        char address[ETH_ADDRESS_STRLEN];
        struct error err = {0};
        struct k256_key *key = k256_key_from_bytes(vectors_hex(row, "private_key", &secret).ptr);

        assert_non_null(key);
        k256_key_point(key, point);
        k256_point_spki(point, spki);
        eth_address_text(point, address);
        assert_hex(row, "public_key", point, sizeof(point));
        assert_hex(row, "spki_der", spki, sizeof(spki));
        assert_string_equal(address, vectors_str(row, "address"));
        assert_int_equal(k256_point_pem(point, &pem), 0);
        assert_ok(pem_decode("PUBLIC KEY", buf_slice(&pem), &der, &err));
        assert_true(slice_equal(buf_slice(&der), slice_of(spki, sizeof(spki))));
        k256_key_free(key);
    }
    json_array_foreach (json_object_get(root, "known_address_pairs"), at, row) {
        AUTO_BUF struct buf point = {0};
        char address[ETH_ADDRESS_STRLEN];

        eth_address_text(vectors_hex(row, "public_key", &point).ptr, address);
        assert_string_equal(address, vectors_str(row, "address"));
    }
    json_array_foreach (json_object_get(root, "private_key_validity"), at, row) {
        AUTO_BUF struct buf secret = {0};
        struct k256_key *key = k256_key_from_bytes(vectors_hex(row, "private_key", &secret).ptr);

        assert_int_equal(key != NULL, json_is_true(json_object_get(row, "valid")));
        k256_key_free(key);
    }
    json_decref(root);
}

static void check_p384_row(const json_t *row, bool pem_too)
{
    AUTO_BUF struct buf secret = {0}, pem = BUF(400);
    uint8_t point[P384_POINT_LEN], spki[P384_SPKI_LEN];
    struct p384_key *key = p384_key_from_bytes(vectors_hex(row, "private_scalar", &secret).ptr);

    assert_non_null(key);
    p384_key_point(key, point);
    p384_point_spki(point, spki);
    assert_hex(row, "public_sec1", point, sizeof(point));
    assert_hex(row, "public_spki_der", spki, sizeof(spki));
    assert_int_equal(p384_point_pem(point, &pem), 0);
    if (pem_too)
        assert_string_equal(buf_cstr(&pem), vectors_str(row, "public_spki_pem"));
    p384_key_free(key);
}

static void test_p384_keys(void **state)
{
    json_t *root = vectors_load("encryption.json"), *row;
    size_t at;

    (void)state;
    json_array_foreach (json_object_get(root, "keys"), at, row)
        check_p384_row(row, true);
    row = json_object_get(json_object_get(root, "reference_entropy_to_p384_key"), "cases");
    for (at = 0; at < json_array_size(row); at++)
        check_p384_row(json_array_get(row, at), false);
    json_decref(root);
}

/* Serves `bad` all-ones candidates, then a good one; counts the draws. */
struct script {
    int bad, draws;
    bool broken;
};

static int fill_by_script(void *arg, uint8_t *out, size_t len, struct error *err)
{
    struct script *s = arg;

    if (s->broken)
        return error_set(err, ERR_IO, "no randomness");
    memset(out, s->draws++ < s->bad ? 0xff : 0x11, len);
    return 0;
}

static void test_scalars_out_of_range_are_drawn_anew(void **state)
{
    struct script s = {.bad = 3};
    struct entropy from = {fill_by_script, &s};
    struct error err = {0};
    struct k256_key *k;
    struct p384_key *p;

    (void)state;
    k = k256_key_draw(&from, &err);
    assert_non_null(k);
    assert_int_equal(s.draws, 4);
    k256_key_free(k);
    s = (struct script){.bad = 15};
    p = p384_key_draw(&from, &err);
    assert_non_null(p);
    assert_int_equal(s.draws, 16);
    p384_key_free(p);

    s = (struct script){.bad = 100};
    assert_null(k256_key_draw(&from, &err));
    assert_int_equal(s.draws, 16);
    assert_int_equal(err.kind, ERR_INTERNAL);
    assert_null(p384_key_draw(&from, &err));
    s.broken = true;
    assert_null(k256_key_draw(&from, &err));
    assert_string_equal(err.msg, "no randomness");
    assert_null(p384_key_draw(&from, &err));
    k = k256_key_draw(&entropy_kernel, &err);
    assert_non_null(k);
    k256_key_free(k);
}

static int fill_with(void *arg, uint8_t *out, size_t len, struct error *err)
{
    (void)err;
    memset(out, *(uint8_t *)arg, len);
    return 0;
}

static void test_mixed_sources(void **state)
{
    uint8_t a = 1, b = 2, joined[96], want[SHA512_LEN], got[48];
    struct script broken = {.broken = true};
    struct entropy_mix mix = {{fill_with, &a}, {fill_with, &b}};
    struct error err = {0};

    (void)state;
    memset(joined, 1, 48);
    memset(joined + 48, 2, 48);
    hash_once(HASH_SHA512, slice_of(joined, sizeof(joined)), want);
    assert_ok(entropy_mix_fill(&mix, got, sizeof(got), &err));
    assert_memory_equal(got, want, sizeof(got));
    mix.a = (struct entropy){fill_by_script, &broken};
    assert_int_equal(entropy_mix_fill(&mix, got, sizeof(got), &err), -1);
    mix.a = mix.b;
    mix.b = (struct entropy){fill_by_script, &broken};
    assert_int_equal(entropy_mix_fill(&mix, got, sizeof(got), &err), -1);
    assert_int_equal(entropy_mix_fill(&mix, joined, 65, &err), -1);
}

static void test_pem_reading(void **state)
{
    static const char *const good[] = {
        "-----BEGIN X-----\naGVs\nbG8=\n-----END X-----\n",
        "words\r-----BEGIN X-----\raGVsbG8=\r-----END X-----\r",
        "-----BEGIN X----- \t\naG  \nVsbG8=\t\r\n-----END X-----  ",
        "words before\r\n-----BEGIN X-----\r\naGVsbG8=\r\n-----END X-----",
        "-----BEGIN Y-----\nAAAA\n-----END Y-----\n-----BEGIN X-----\naGVsbG8=\n-----END X-----\n",
    };
    static const char *const bad[] = {
        "",
        "-----BEGIN X-----",
        "-----BEGIN X-----\naGVsbG8=\n",
        "-----BEGIN X-----\naGVsbG8\n-----END X-----\n",
        "-----BEGIN X-----\naGVsbG8=\n-----END Y-----\n",
        "-----BEGIN X-----\n aGVsbG8=\n-----END X-----\n",
        "-----BEGIN X-----\naGVs bG8=\n-----END X-----\n",
        "-----BEGIN X-----\nKey: 1\n\naGVsbG8=\n-----END X-----\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        AUTO_BUF struct buf out = BUF(100);
        struct error err = {0};

        assert_ok(pem_decode("X", slice_str(good[i]), &out, &err));
        assert_true(slice_equal_str(buf_slice(&out), "hello"));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_BUF struct buf out = BUF(100);
        struct error err = {0};

        assert_int_equal(pem_decode("X", slice_str(bad[i]), &out, &err), -1);
        assert_int_equal(out.len, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keccak256),
        cmocka_unit_test(test_ethereum_keys),
        cmocka_unit_test(test_p384_keys),
        cmocka_unit_test(test_scalars_out_of_range_are_drawn_anew),
        cmocka_unit_test(test_mixed_sources),
        cmocka_unit_test(test_pem_reading),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
