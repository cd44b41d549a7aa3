#include "unit.h"
#include "vectors.h"

#include "crypto/aead.h"
#include "crypto/hkdf.h"
#include "crypto/p384_box.h"

#include <pthread.h>

static json_t *root;

static int load(void **state)
{
    (void)state;
    root = vectors_load("encryption.json");
    return 0;
}

static int unload(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static const json_t *key_row(const char *name)
{
    const json_t *row;
    size_t at;

    json_array_foreach (json_object_get(root, "keys"), at, row)
        if (strcmp(vectors_str(row, "name"), name) == 0)
            return row;
    fail_msg("no key %s", name);
    return NULL;
}

static struct p384_key *key_of(const char *name)
{
    AUTO_BUF struct buf secret = {0};
    struct p384_key *key =
        p384_key_from_bytes(vectors_hex(key_row(name), "private_scalar", &secret).ptr);

    assert_non_null(key);
    return key;
}

static void point_of(const json_t *row, const char *member, uint8_t *point)
{
    AUTO_BUF struct buf der = {0};
    struct error err;

    assert_ok(p384_point_from_spki(vectors_hex(row, member, &der), point, &err));
}

static void hkdf_of_rfc_5869(void **state)
{
    static const struct {
        const char *ikm, *salt, *info, *okm;
    } cases[] = {
        {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c",
         "f0f1f2f3f4f5f6f7f8f9",
         "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"},
        {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
         "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_BUF struct buf ikm = {0}, salt = {0}, info = {0}, okm = {0};
        uint8_t out[42];

        hex_slice(&okm, cases[i].okm);
        assert_int_equal(okm.len, sizeof(out));
        hkdf_sha256(hex_slice(&ikm, cases[i].ikm), hex_slice(&salt, cases[i].salt),
                    hex_slice(&info, cases[i].info), out, sizeof(out));
        assert_memory_equal(out, okm.ptr, sizeof(out));
    }
}

/* Test case 16 of the GCM specification: additional data, and a text that ends within a block. */
static void gcm_with_additional_data(void **state)
{
    AUTO_BUF struct buf key = {0}, nonce = {0}, aad = {0}, text = {0}, want = {0};
    AUTO_BUF struct buf sealed = BUF(100), opened = BUF(100), tight = BUF(60 + 15);

    (void)state;
    hex_slice(&key, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    hex_slice(&nonce, "cafebabefacedbaddecaf888");
    hex_slice(&aad, "feedfacedeadbeeffeedfacedeadbeefabaddad2");
    hex_slice(&text, "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                     "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    hex_slice(&want, "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
                     "76fc6ece0f4e1768cddf8853bb2d551b");
    assert_int_equal(
        aes256_gcm_seal(key.ptr, nonce.ptr, buf_slice(&aad), buf_slice(&text), &sealed), 0);
    assert_true(slice_equal(buf_slice(&sealed), buf_slice(&want)));
    assert_int_equal(
        aes256_gcm_open(key.ptr, nonce.ptr, buf_slice(&aad), buf_slice(&sealed), &opened), 0);
    assert_true(slice_equal(buf_slice(&opened), buf_slice(&text)));
    aad.ptr[0] ^= 1;
    assert_int_equal(
        aes256_gcm_open(key.ptr, nonce.ptr, buf_slice(&aad), buf_slice(&sealed), &opened), -1);
    assert_int_equal(opened.len, text.len);
    assert_int_equal(aes256_gcm_seal(key.ptr, nonce.ptr, buf_slice(&aad), buf_slice(&text), &tight),
                     -1);
    assert_int_equal(tight.len, 0);
}

/* Every step of the scheme, from both ends. */
static void check_message(const json_t *row)
{
    AUTO_BUF struct buf z = {0}, salt = {0}, aes = {0}, plain = {0}, sealed = {0}, nonce = {0};
    AUTO_BUF struct buf out = BUF(4096);
    const char *names[] = {vectors_str(row, "enclave"), vectors_str(row, "client")};
    uint8_t shared[P384_SHARED_LEN], derived[AES256_GCM_KEY_LEN];

    vectors_hex(row, "ecdh_shared_secret", &z);
    vectors_hex(row, "hkdf_salt", &salt);
    vectors_hex(row, "aes_key", &aes);
    vectors_hex(row, "plaintext_hex", &plain);
    vectors_hex(row, "encrypted_data", &sealed);
    vectors_hex(row, "gcm_nonce", &nonce);
    hkdf_sha256(buf_slice(&z), buf_slice(&salt), slice_str(vectors_str(row, "hkdf_info_utf8")),
                derived, sizeof(derived));
    assert_memory_equal(derived, aes.ptr, sizeof(derived));
    for (size_t i = 0; i < 2; i++) {
        struct p384_key *key = key_of(names[i]);
        uint8_t peer[P384_POINT_LEN];

        point_of(key_row(names[!i]), "public_spki_der", peer);
        assert_int_equal(p384_ecdh(key, peer, shared), 0);
        assert_memory_equal(shared, z.ptr, sizeof(shared));
        buf_clear(&out);
        assert_int_equal(p384_box_seal(key, peer, nonce.ptr, buf_slice(&plain), &out), 0);
        assert_true(slice_equal(buf_slice(&out), buf_slice(&sealed)));
        buf_clear(&out);
        assert_int_equal(p384_box_open(key, peer, nonce.ptr, buf_slice(&sealed), &out), 0);
        assert_true(slice_equal(buf_slice(&out), buf_slice(&plain)));
        p384_key_free(key);
    }
}

static void messages(void **state)
{
    const json_t *row;
    size_t at;

    (void)state;
    json_array_foreach (json_object_get(root, "messages"), at, row)
        check_message(row);
    assert_true(at >= 16);
}

/* The code that the route would answer with, or "". */
static const char *open_request(const json_t *request, struct buf *plain)
{
    AUTO_BUF struct buf nonce = {0}, der = {0}, sealed = {0};
    struct p384_key *key = key_of("enclave");
    const char *code = "";
    uint8_t peer[P384_POINT_LEN];
    struct error err;

    vectors_hex(request, "nonce", &nonce);
    vectors_hex(request, "encrypted_data", &sealed);
    assert_true(nonce.len >= P384_BOX_NONCE_LEN);
    if (p384_point_from_spki(vectors_hex(request, "client_public_key", &der), peer, &err) < 0) {
        assert_int_equal(err.kind, ERR_INVALID);
        code = "invalid_public_key";
    } else if (p384_box_open(key, peer, nonce.ptr, buf_slice(&sealed), plain) < 0) {
        assert_int_equal(plain->len, 0);
        code = "decryption_failed";
    }
    p384_key_free(key);
    return code;
}

static void requests_taken_and_refused(void **state)
{
    const json_t *row;
    size_t at, tried = 0;

    (void)state;
    json_array_foreach (json_object_get(root, "decrypt_accept"), at, row) {
        AUTO_BUF struct buf plain = BUF(4096);
        const json_t *response = json_object_get(row, "response");

        assert_string_equal(open_request(json_object_get(row, "request"), &plain), "");
        assert_string_equal(buf_cstr(&plain), vectors_str(response, "plaintext"));
    }
    assert_true(at >= 5);
    json_array_foreach (json_object_get(root, "decrypt_reject"), at, row) {
        AUTO_BUF struct buf plain = BUF(4096);
        const char *want = vectors_str(row, "required_code");

        /* The others are refused before the crypto. */
        if (strcmp(want, "invalid_public_key") != 0 && strcmp(want, "decryption_failed") != 0)
            continue;
        assert_string_equal(open_request(json_object_get(row, "request"), &plain), want);
        tried++;
    }
    assert_true(tried >= 14);
}

static void public_keys(void **state)
{
    const json_t *known = json_object_get(root, "known_public_key"), *row;
    AUTO_BUF struct buf der = {0}, pem = BUF(400);
    uint8_t point[P384_POINT_LEN], again[P384_POINT_LEN], spki[P384_SPKI_LEN];
    size_t at;

    (void)state;
    point_of(known, "public_spki_der", point);
    p384_point_spki(point, spki);
    assert_true(
        slice_equal(slice_of(spki, sizeof(spki)), vectors_hex(known, "public_spki_der", &der)));
    assert_int_equal(p384_point_pem(point, &pem), 0);
    assert_string_equal(buf_cstr(&pem), vectors_str(known, "public_spki_pem"));
    json_array_foreach (json_object_get(root, "keys"), at, row) {
        AUTO_BUF struct buf small = {0}, form = BUF(P384_SPKI_LEN);
        struct error err;

        point_of(row, "public_spki_der", point);
        vectors_hex(row, "public_sec1_compressed", &small);
        assert_int_equal(buf_append(&form, spki, sizeof(spki) - sizeof(point)), 0);
        assert_int_equal(buf_append(&form, small.ptr, small.len), 0);
        form.ptr[1] = 0x46;
        form.ptr[21] = 0x32;
        assert_ok(p384_point_from_spki(buf_slice(&form), again, &err));
        assert_memory_equal(again, point, sizeof(point));
    }
}

/* No bit in front of the coordinates may differ (06 is a hybrid form), nor the length. */
static void only_the_two_forms(void **state)
{
    AUTO_BUF struct buf good = {0};
    uint8_t point[P384_POINT_LEN];
    struct error err;

    (void)state;
    vectors_hex(key_row("client_low"), "public_spki_der", &good);
    for (size_t at = 0; at < P384_SPKI_LEN - 96; at++) {
        for (int bit = 0; bit < 8; bit++) {
            good.ptr[at] ^= (uint8_t)(1 << bit);
            assert_int_equal(p384_point_from_spki(buf_slice(&good), point, &err), -1);
            good.ptr[at] ^= (uint8_t)(1 << bit);
        }
    }
    for (size_t len = 0; len < good.len; len++)
        assert_int_equal(p384_point_from_spki(slice_of(good.ptr, len), point, &err), -1);
    assert_int_equal(buf_append_byte(&good, 0), 0);
    assert_int_equal(p384_point_from_spki(buf_slice(&good), point, &err), -1);
}

static void points_off_the_curve(void **state)
{
    struct p384_key *key = key_of("enclave");
    uint8_t point[P384_POINT_LEN], out[P384_SHARED_LEN];
    AUTO_BUF struct buf sealed = BUF(100);
    const uint8_t nonce[P384_BOX_NONCE_LEN] = {0};

    (void)state;
    p384_key_point(key, point);
    point[96] ^= 1;
    assert_int_equal(p384_ecdh(key, point, out), -1);
    assert_int_equal(p384_box_seal(key, point, nonce, slice_str("text"), &sealed), -1);
    assert_int_equal(sealed.len, 0);
    memset(point, 0, sizeof(point)); /* infinity, with bytes behind it */
    assert_int_equal(p384_ecdh(key, point, out), -1);
    p384_key_free(key);
}

/* ---- threads ---- */

struct party {
    pthread_t thread;
    const struct p384_key *key;
    const uint8_t *peer;
    uint8_t tag;
    bool good;
};

static void *talk(void *arg)
{
    struct party *p = arg;

    p->good = true;
    for (uint8_t i = 0; i < 20; i++) {
        AUTO_BUF struct buf sealed = BUF(100), opened = BUF_SECRET(100);
        uint8_t nonce[P384_BOX_NONCE_LEN] = {p->tag, i};
        struct slice text = slice_of(nonce, sizeof(nonce));

        p->good = p->good && p384_box_seal(p->key, p->peer, nonce, text, &sealed) == 0 &&
                  p384_box_open(p->key, p->peer, nonce, buf_slice(&sealed), &opened) == 0 &&
                  slice_equal(buf_slice(&opened), text);
    }
    return NULL;
}

static void threads_share_a_key(void **state)
{
    struct p384_key *key = key_of("enclave");
    uint8_t peer[P384_POINT_LEN];
    struct party parties[4];

    (void)state;
    point_of(key_row("client_low"), "public_spki_der", peer);
    for (size_t i = 0; i < ARRAY_LEN(parties); i++) {
        parties[i] = (struct party){.key = key, .peer = peer, .tag = (uint8_t)i};
        assert_int_equal(pthread_create(&parties[i].thread, NULL, talk, &parties[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(parties); i++) {
        pthread_join(parties[i].thread, NULL);
        assert_true(parties[i].good);
    }
    p384_key_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hkdf_of_rfc_5869),
        cmocka_unit_test(gcm_with_additional_data),
        cmocka_unit_test(messages),
        cmocka_unit_test(requests_taken_and_refused),
        cmocka_unit_test(public_keys),
        cmocka_unit_test(only_the_two_forms),
        cmocka_unit_test(points_off_the_curve),
        cmocka_unit_test(threads_share_a_key),
    };

    return cmocka_run_group_tests(tests, load, unload);
}
