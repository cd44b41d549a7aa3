#include "unit.h"
#include "vectors.h"

#include "crypto/ecdsa.h"

#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>

#define AUTO_KEY CLEANUP(free_key)
#define AUTO_PUB CLEANUP(free_pub)

static void free_key(struct ecdsa_key **key)
{
    ecdsa_key_free(*key);
}

static void free_pub(struct ecdsa_pub **pub)
{
    ecdsa_pub_free(*pub);
}

/* A SEC1 PEM (RFC 5915) around a bare scalar; the reader computes the public key. */
static struct ecdsa_key *key_of_scalar(enum ecdsa_curve curve, const char *hex)
{
    static const char *const oid[] = {"a00a06082a8648ce3d030107", "a00706052b81040022",
                                      "a00706052b81040023"};
    AUTO_BUF struct buf der = {0}, pem = BUF(4096);
    struct error err = {0};
    struct ecdsa_key *key;
    size_t len = strlen(hex) / 2, params = strlen(oid[curve]) / 2;
    char *text = xasprintf("30%02zx02010104%02zx%s%s", 3 + 2 + len + params, len, hex, oid[curve]);

    assert_int_equal(buf_append_str(&pem, "-----BEGIN EC PRIVATE KEY-----\n"), 0);
    hex_slice(&der, text);
    free(text);
    for (size_t at = 0; at < der.len; at += 48) {
        size_t part = der.len - at < 48 ? der.len - at : 48;

        assert_int_equal(base64_encode(slice_of(der.ptr + at, part), &pem), 0);
        assert_int_equal(buf_append_byte(&pem, '\n'), 0);
    }
    assert_int_equal(buf_append_str(&pem, "-----END EC PRIVATE KEY-----\n"), 0);
    key = ecdsa_key_from_pem(buf_slice(&pem), &err);
    if (!key)
        fail_msg("%s", err.msg);
    return key;
}

/* RFC 6979 appendix A.2.5 to A.2.7, the rows whose digest belongs to the curve. */
static void test_published_signatures(void **state)
{
    static const struct {
        enum ecdsa_curve curve;
        const char *scalar, *message, *r, *s;
    } rows[] = {
        {ECDSA_P256, "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721", "sample",
         "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
         "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"},
        {ECDSA_P256, "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721", "test",
         "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367",
         "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083"},
        {ECDSA_P384,
         "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d8"
         "96d5724e4c70a825f872c9ea60d2edf5",
         "sample",
         "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c"
         "81a648152e44acf96e36dd1e80fabe46",
         "99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94f"
         "a329c145786e679e7b82c71a38628ac8"},
        {ECDSA_P384,
         "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d8"
         "96d5724e4c70a825f872c9ea60d2edf5",
         "test",
         "8203b63d3c853e8d77227fb377bcf7b7b772e97892a80f36ab775d509d7a5feb"
         "0542a7f0812998da8f1dd3ca3cf023db",
         "ddd0760448d42d8a43af45af836fce4de8be06b485e9b61b827c2f13173923e0"
         "6a739f040649a667bf3b828246baa5a5"},
        {ECDSA_P521,
         "00fad06daa62ba3b25d2fb40133da757205de67f5bb0018fee8c86e1b68c7e75"
         "caa896eb32f1f47c70855836a6d16fcc1466f6d8fbec67db89ec0c08b0e996b8"
         "3538",
         "sample",
         "00c328fafcbd79dd77850370c46325d987cb525569fb63c5d3bc53950e6d4c5f"
         "174e25a1ee9017b5d450606add152b534931d7d4e8455cc91f9b15bf05ec36e3"
         "77fa",
         "00617cce7cf5064806c467f678d3b4080d6f1cc50af26ca209417308281b68af"
         "282623eaa63e5b5c0723d8b8c37ff0777b1a20f8ccb1dccc43997f1ee0e44da4"
         "a67a"},
        {ECDSA_P521,
         "00fad06daa62ba3b25d2fb40133da757205de67f5bb0018fee8c86e1b68c7e75"
         "caa896eb32f1f47c70855836a6d16fcc1466f6d8fbec67db89ec0c08b0e996b8"
         "3538",
         "test",
         "013e99020abf5cee7525d16b69b229652ab6bdf2affcaef38773b4b7d08725f1"
         "0cdb93482fdcc54edcee91eca4166b2a7c6265ef0ce2bd7051b7cef945babd47"
         "ee6d",
         "01fbd0013c674aa79cb39849527916ce301c66ea7ce8b80682786ad60f98f7e7"
         "8a19ca69eff5c57400e3b3a0ad66ce0978214d13baf4e9ac60752f7b155e2de4"
         "dce3"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        AUTO_KEY struct ecdsa_key *key = key_of_scalar(rows[i].curve, rows[i].scalar);
        AUTO_BUF struct buf r = {0}, s = {0};
        uint8_t sig[ECDSA_SIGNATURE_MAX];
        struct error err = {0};
        size_t half = ecdsa_signature_len(rows[i].curve) / 2;

        assert_int_equal(ecdsa_key_curve(key), rows[i].curve);
        assert_ok(ecdsa_sign(key, slice_str(rows[i].message), sig, &err));
        hex_slice(&r, rows[i].r);
        hex_slice(&s, rows[i].s);
        assert_int_equal(r.len, half);
        assert_memory_equal(sig, r.ptr, half);
        assert_memory_equal(sig + half, s.ptr, half);
    }
}

/* The signed images of eif.json: key, certificate, signed bytes and signature. */
static void test_image_signatures(void **state)
{
    json_t *root = vectors_load("eif.json"), *image, *sec;
    size_t at, seen = 0;

    (void)state;
    json_array_foreach (json_object_get(root, "images"), at, image) {
        AUTO_BUF struct buf bytes = {0}, want = {0}, der = BUF(4096), spki_a = BUF(512),
                            spki_b = BUF(512);
        uint8_t sig[ECDSA_SIGNATURE_MAX];
        struct error err = {0};
        const char *pem = vectors_str(image, "test_only_private_key_pem");
        BIO *bio;
        X509 *cert;
        uint8_t *p = NULL;
        int len;

        if (!pem)
            continue;
        sec = json_object_get(image, "signature_section");
        AUTO_KEY struct ecdsa_key *key = ecdsa_key_from_pem(slice_str(pem), &err);
        assert_non_null(key);
        assert_int_equal(ecdsa_cose_alg(ecdsa_key_curve(key)),
                         json_integer_value(json_object_get(image, "cose_alg")));
        assert_ok(ecdsa_sign(key, vectors_hex(sec, "sig_structure", &bytes), sig, &err));
        vectors_hex(sec, "raw_signature", &want);
        assert_int_equal(want.len, ecdsa_signature_len(ecdsa_key_curve(key)));
        assert_memory_equal(sig, want.ptr, want.len);

        bio = BIO_new_mem_buf(vectors_str(image, "signing_certificate_pem"), -1);
        cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        len = i2d_X509(cert, &p);
        assert_int_equal(buf_append(&der, p, (size_t)len), 0);
        OPENSSL_free(p);
        X509_free(cert);
        BIO_free(bio);
        AUTO_PUB struct ecdsa_pub *of_cert = ecdsa_pub_from_cert(buf_slice(&der), &err);
        AUTO_PUB struct ecdsa_pub *of_key = ecdsa_pub_of_key(key);
        assert_non_null(of_cert);
        assert_true(ecdsa_pub_equal(of_cert, of_key));
        assert_true(ecdsa_verify(of_cert, buf_slice(&bytes), buf_slice(&want)));
        assert_ok(ecdsa_pub_to_spki(of_cert, &spki_a, &err));
        assert_ok(ecdsa_pub_to_spki(of_key, &spki_b, &err));
        assert_true(slice_equal(buf_slice(&spki_a), buf_slice(&spki_b)));
        seen++;
    }
    assert_int_equal(seen, 3);
    json_decref(root);
}

static const EVP_MD *evp_md(enum ecdsa_curve curve)
{
    return curve == ECDSA_P256 ? EVP_sha256() : curve == ECDSA_P384 ? EVP_sha384() : EVP_sha512();
}

/* r || s to the DER that EVP takes. */
static size_t to_der(enum ecdsa_curve curve, const uint8_t *sig, uint8_t *out)
{
    int half = (int)ecdsa_signature_len(curve) / 2, len;
    ECDSA_SIG *s = ECDSA_SIG_new();

    ECDSA_SIG_set0(s, BN_bin2bn(sig, half, NULL), BN_bin2bn(sig + half, half, NULL));
    len = i2d_ECDSA_SIG(s, &out);
    ECDSA_SIG_free(s);
    return (size_t)len;
}

/* OpenSSL's own signer and verifier against ours, both ways, through PEM and SPKI. */
static void test_agrees_with_evp(void **state)
{
    static const char message[] = "a message of no importance";
    struct slice text = slice_str(message);

    (void)state;
    for (int c = ECDSA_P256; c <= ECDSA_P521; c++) {
        struct error err = {0};
        uint8_t sig[ECDSA_SIGNATURE_MAX], der[160];
        size_t der_len = sizeof(der), half = ecdsa_signature_len((enum ecdsa_curve)c) / 2;
        AUTO_BUF struct buf pem = BUF_SECRET(4096), spki = BUF(512);
        AUTO_KEY struct ecdsa_key *key = ecdsa_key_generate((enum ecdsa_curve)c, &err);
        AUTO_PUB struct ecdsa_pub *pub = ecdsa_pub_of_key(key);
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        const uint8_t *p;
        EVP_PKEY *evp_pub, *evp_key;
        ECDSA_SIG *s;
        BIO *bio;

        assert_ok(ecdsa_key_to_pem(key, &pem, &err));
        assert_non_null(strstr(buf_cstr(&pem), "-----BEGIN PRIVATE KEY-----"));
        assert_ok(ecdsa_pub_to_spki(pub, &spki, &err));
        AUTO_PUB struct ecdsa_pub *again = ecdsa_pub_from_spki(buf_slice(&spki), &err);
        assert_true(ecdsa_pub_equal(pub, again));

        p = spki.ptr;
        evp_pub = d2i_PUBKEY(NULL, &p, (long)spki.len);
        assert_ok(ecdsa_sign(key, text, sig, &err));
        assert_int_equal(
            EVP_DigestVerifyInit(ctx, NULL, evp_md((enum ecdsa_curve)c), NULL, evp_pub), 1);
        assert_int_equal(
            EVP_DigestVerify(ctx, der, to_der((enum ecdsa_curve)c, sig, der), text.ptr, text.len),
            1);

        bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
        evp_key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
        EVP_MD_CTX_reset(ctx);
        EVP_DigestSignInit(ctx, NULL, evp_md((enum ecdsa_curve)c), NULL, evp_key);
        assert_int_equal(EVP_DigestSign(ctx, der, &der_len, text.ptr, text.len), 1);
        p = der;
        s = d2i_ECDSA_SIG(NULL, &p, (long)der_len);
        BN_bn2binpad(ECDSA_SIG_get0_r(s), sig, (int)half);
        BN_bn2binpad(ECDSA_SIG_get0_s(s), sig + half, (int)half);
        assert_true(ecdsa_verify(again, text, slice_of(sig, 2 * half)));
        sig[half] ^= 1;
        assert_false(ecdsa_verify(again, text, slice_of(sig, 2 * half)));
        ECDSA_SIG_free(s);
        BIO_free(bio);
        EVP_PKEY_free(evp_key);
        EVP_PKEY_free(evp_pub);
        EVP_MD_CTX_free(ctx);
    }
}

/* High s passes; r or s of 0 or n, and other lengths, do not. */
static void test_signature_range(void **state)
{
    struct slice text = slice_str("x");
    struct error err = {0};
    uint8_t sig[96], other[96];
    AUTO_KEY struct ecdsa_key *key = ecdsa_key_generate(ECDSA_P384, &err);
    AUTO_PUB struct ecdsa_pub *pub = ecdsa_pub_of_key(key);
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_secp384r1);
    BIGNUM *s = BN_new();

    (void)state;
    assert_ok(ecdsa_sign(key, text, sig, &err));
    assert_true(ecdsa_verify(pub, text, slice_of(sig, 96)));
    assert_false(ecdsa_verify(pub, text, slice_of(sig, 95)));
    assert_false(ecdsa_verify(pub, text, slice_of(NULL, 0)));
    assert_false(ecdsa_verify(pub, slice_str("y"), slice_of(sig, 96)));

    memcpy(other, sig, 96);
    BN_bin2bn(sig + 48, 48, s);
    BN_sub(s, EC_GROUP_get0_order(group), s);
    BN_bn2binpad(s, other + 48, 48);
    assert_true(ecdsa_verify(pub, text, slice_of(other, 96)));
    BN_bn2binpad(EC_GROUP_get0_order(group), other + 48, 48);
    assert_false(ecdsa_verify(pub, text, slice_of(other, 96)));
    memset(other + 48, 0, 48);
    assert_false(ecdsa_verify(pub, text, slice_of(other, 96)));
    memcpy(other, sig, 96);
    memset(other, 0, 48);
    assert_false(ecdsa_verify(pub, text, slice_of(other, 96)));
    BN_free(s);
    EC_GROUP_free(group);
}

/* The text of a key that OpenSSL writes; `cipher` encrypts it. */
static void pem_of(EVP_PKEY *pkey, const EVP_CIPHER *cipher, struct buf *out)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text;
    long len;

    assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, pkey, cipher, "secret", 6, NULL, NULL), 1);
    len = BIO_get_mem_data(bio, &text);
    *out = BUF(1 << 16);
    assert_int_equal(buf_append(out, text, (size_t)len), 0);
    BIO_free(bio);
    EVP_PKEY_free(pkey);
}

static void test_unusable_keys_are_named(void **state)
{
    AUTO_BUF struct buf rsa = {0}, k256 = {0}, locked = {0}, explicit = {0};
    struct error err = {0};
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    EVP_PKEY *pkey = NULL;

    (void)state;
    pem_of(EVP_RSA_gen(2048), NULL, &rsa);
    assert_null(ecdsa_key_from_pem(buf_slice(&rsa), &err));
    assert_int_equal(err.kind, ERR_UNSUPPORTED);
    assert_string_equal(err.msg, "the private key is not an elliptic-curve key");
    pem_of(EVP_EC_gen("secp256k1"), NULL, &k256);
    assert_null(ecdsa_key_from_pem(buf_slice(&k256), &err));
    assert_int_equal(err.kind, ERR_UNSUPPORTED);
    pem_of(EVP_EC_gen("P-384"), EVP_aes_256_cbc(), &locked);
    assert_null(ecdsa_key_from_pem(buf_slice(&locked), &err));
    assert_string_equal(err.msg, "the private key is encrypted");

    EVP_PKEY_keygen_init(ctx);
    EVP_PKEY_CTX_set_group_name(ctx, "P-256");
    EVP_PKEY_CTX_set_ec_param_enc(ctx, OPENSSL_EC_EXPLICIT_CURVE);
    EVP_PKEY_generate(ctx, &pkey);
    EVP_PKEY_CTX_free(ctx);
    pem_of(pkey, NULL, &explicit);
    assert_null(ecdsa_key_from_pem(buf_slice(&explicit), &err));
    assert_int_equal(err.kind, ERR_UNSUPPORTED);

    assert_null(ecdsa_key_from_pem(slice_str("no key here"), &err));
    assert_int_equal(err.kind, ERR_INVALID);
    assert_null(ecdsa_key_from_pem(slice_str(""), &err));
    assert_null(ecdsa_pub_from_spki(slice_str("\x30\x00"), &err));
    assert_null(ecdsa_pub_from_spki((struct slice){0}, &err));
    assert_null(ecdsa_pub_from_cert(slice_str("0"), &err));
    assert_null(ecdsa_pub_from_cert((struct slice){0}, &err));
}

static void test_spki_has_one_spelling(void **state)
{
    AUTO_BUF struct buf spki = BUF(200), longer = BUF(200);
    struct error err = {0};
    AUTO_KEY struct ecdsa_key *key = ecdsa_key_generate(ECDSA_P384, &err);
    AUTO_PUB struct ecdsa_pub *pub = ecdsa_pub_of_key(key);

    (void)state;
    assert_ok(ecdsa_pub_to_spki(pub, &spki, &err));
    assert_int_equal(spki.len, 120);
    assert_int_equal(buf_append_byte(&spki, 0), 0);
    assert_null(ecdsa_pub_from_spki(buf_slice(&spki), &err));
    /* the outer length in its long form */
    assert_int_equal(buf_append(&longer, "\x30\x81\x76", 3), 0);
    assert_int_equal(buf_append(&longer, spki.ptr + 2, 118), 0);
    assert_null(ecdsa_pub_from_spki(buf_slice(&longer), &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_signatures),
        cmocka_unit_test(test_image_signatures),
        cmocka_unit_test(test_agrees_with_evp),
        cmocka_unit_test(test_signature_range),
        cmocka_unit_test(test_unusable_keys_are_named),
        cmocka_unit_test(test_spki_has_one_spelling),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
