#include "unit.h"
#include "vectors.h"

#include "attest/cose.h"
#include "attest/verify.h"
#include "crypto/hash.h"

#include <stdio.h>
#include <string.h>

/* The 38 documents under the vectors' own root. */
struct fixture {
    json_t *root;
    struct buf anchor_der;
    struct attest_anchor anchor;
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    json_t *certs;

    f->root = vectors_load("attestation.json");
    certs = json_object_get(f->root, "certificates");
    f->anchor.name = "the test root";
    f->anchor.der = vectors_base64(json_object_get(certs, "root"), "der_base64", &f->anchor_der);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    json_decref(f->root);
    buf_free(&f->anchor_der);
    free(f);
    return 0;
}

static json_t *document_named(const struct fixture *f, const char *name)
{
    json_t *row;
    size_t at;

    json_array_foreach (json_object_get(f->root, "documents"), at, row) {
        if (strcmp(vectors_str(row, "name"), name) == 0)
            return row;
    }
    fail_msg("no document %s", name);
    return NULL;
}

/* The hex members of a row's policy live in *nonce. */
static void policy_of(const json_t *row, struct attest_policy *policy, struct buf *nonce)
{
    json_t *json = json_object_get(row, "policy"), *value;
    struct error err = {0};
    const char *index;

    *policy = (struct attest_policy){
        .verify_time = json_integer_value(json_object_get(json, "verify_time")),
        .allow_debug = json_is_true(json_object_get(json, "allow_debug")),
        .limit_age = json_object_get(json, "max_age_ms") != NULL,
        .max_age_ms = (uint64_t)json_integer_value(json_object_get(json, "max_age_ms")),
    };
    json_object_foreach (json_object_get(json, "pcrs"), index, value) {
        uint8_t pcr[ATTEST_PCR_LEN];

        assert_int_equal(hex_decode(slice_str(json_string_value(value)), pcr, sizeof(pcr)), 0);
        assert_ok(attest_policy_expect_pcr(policy, (unsigned int)atoi(index), pcr, &err));
    }
    if (vectors_str(json, "nonce_hex")) {
        policy->nonce.present = true;
        policy->nonce.bytes = vectors_hex(json, "nonce_hex", nonce);
    }
}

static void count_check(void *arg, const char *check)
{
    (void)check;
    ++*(int *)arg;
}

static void test_every_vector(void **state)
{
    const struct fixture *f = *state;
    json_t *row;
    size_t at;

    json_array_foreach (json_object_get(f->root, "documents"), at, row) {
        AUTO_BUF struct buf bytes = {0}, nonce = {0};
        const char *want = vectors_str(row, "error"), *name = vectors_str(row, "name");
        enum attest_failure why = ATTEST_POLICY;
        struct attest_document doc;
        struct attest_policy policy;
        struct error err = {0};
        int passed = 0, ret;
        const struct attest_observer observer = {count_check, &passed};

        policy_of(row, &policy, &nonce);
        vectors_base64(row, "document_base64", &bytes);
        ret = attest_verify(buf_slice(&bytes), &f->anchor, &policy, &observer, &doc, &why, &err);
        if (strcmp(attest_failure_name(why), want ? want : "ok") != 0)
            fail_msg("%s: %s instead of %s (%s)", name, attest_failure_name(why),
                     want ? want : "ok", err.msg);
        assert_int_equal(ret, want ? -1 : 0);
        assert_true(want ? err.msg[0] != '\0' : passed >= 10);
    }
    assert_int_equal(at, 38);
}

static void assert_option(const json_t *parsed, const char *key, const struct attest_option *got)
{
    char *name = xasprintf("%s_hex", key);
    const char *hex = vectors_str(parsed, name);

    assert_int_equal(got->present, hex != NULL);
    if (hex) {
        AUTO_BUF struct buf want = {0};

        assert_true(slice_equal(vectors_hex(parsed, name, &want), got->bytes));
    }
    free(name);
}

static void test_members_are_read(void **state)
{
    const struct fixture *f = *state;
    json_t *row, *parsed, *value;
    const char *index;
    size_t at, seen = 0;

    json_array_foreach (json_object_get(f->root, "documents"), at, row) {
        AUTO_BUF struct buf bytes = {0};
        struct attest_document doc;
        enum attest_failure why;
        struct error err = {0};

        parsed = json_object_get(row, "parsed");
        if (!parsed)
            continue;
        seen++;
        assert_ok(attest_inspect(vectors_base64(row, "document_base64", &bytes), &doc, &why, &err));
        assert_true(slice_equal_str(doc.module_id, vectors_str(parsed, "module_id")));
        assert_int_equal(doc.timestamp_ms,
                         json_integer_value(json_object_get(parsed, "timestamp")));
        assert_int_equal(__builtin_popcount(doc.pcrs),
                         json_object_size(json_object_get(parsed, "pcrs")));
        json_object_foreach (json_object_get(parsed, "pcrs"), index, value) {
            char hex[2 * ATTEST_PCR_LEN + 1];

            hex_encode(doc.pcr[atoi(index)], hex);
            assert_string_equal(hex, json_string_value(value));
        }
        assert_option(parsed, "public_key", &doc.public_key);
        assert_option(parsed, "user_data", &doc.user_data);
        assert_option(parsed, "nonce", &doc.nonce);
    }
    assert_true(seen >= 5);
}

/* Reading and writing again gives the payload as it was, in both forms of the map. */
static void test_payload_is_written_as_devices_do(void **state)
{
    static const char *const names[] = {"good", "good-indefinite-map", "good-null-optionals"};
    const struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        AUTO_BUF struct buf bytes = {0}, again = BUF(ATTEST_DOCUMENT_MAX);
        struct attest_document doc;
        struct cose_sign1 sign1;
        struct cbor_item item;
        enum attest_failure why;
        struct error err = {0};

        vectors_base64(document_named(f, names[i]), "document_base64", &bytes);
        assert_ok(cbor_parse(buf_slice(&bytes), &item, &err));
        assert_ok(cose_sign1_read(&item, &sign1, &err));
        assert_ok(attest_document_read(sign1.payload, &doc, &why, &err));
        assert_ok(attest_document_write(&doc, i == 1, &again, &err));
        assert_true(slice_equal(buf_slice(&again), sign1.payload));
    }
}

/* With the leaf's key our own bytes verify, tagged or not; the signed digest is the vector's. */
static void test_cose_both_ways(void **state)
{
    const struct fixture *f = *state;
    json_t *row = document_named(f, "good");
    AUTO_BUF struct buf bytes = {0}, mine = BUF(ATTEST_DOCUMENT_MAX), tagged = BUF(20000),
                        nonce = {0};
    struct error err = {0};
    struct ecdsa_key *key =
        ecdsa_key_from_pem(slice_str(vectors_str(f->root, "test_only_leaf_private_key_pem")), &err);
    struct attest_document doc;
    struct attest_policy policy;
    enum attest_failure why;
    struct cose_sign1 sign1;
    struct cbor_item item;

    vectors_base64(row, "document_base64", &bytes);
    policy_of(row, &policy, &nonce);
    assert_ok(cbor_parse(buf_slice(&bytes), &item, &err));
    assert_ok(cose_sign1_read(&item, &sign1, &err));
    assert_ok(cose_sign1_write(sign1.payload, key, &mine, &err));
    assert_ok(attest_verify(buf_slice(&mine), &f->anchor, &policy, NULL, &doc, &why, &err));
    assert_int_equal(buf_append_byte(&tagged, 0xd2), 0);
    assert_int_equal(buf_append(&tagged, bytes.ptr, bytes.len), 0);
    assert_ok(attest_verify(buf_slice(&tagged), &f->anchor, &policy, NULL, &doc, &why, &err));
    tagged.ptr[0] = 0xd1; /* COSE_Mac0 */
    assert_int_equal(attest_verify(buf_slice(&tagged), &f->anchor, &policy, NULL, &doc, &why, &err),
                     -1);
    assert_int_equal(why, ATTEST_COSE);
    ecdsa_key_free(key);
}

/* Signs `payload` with the leaf key and verifies it under `policy`. */
static enum attest_failure verdict(const struct fixture *f, struct slice payload,
                                   const struct attest_policy *policy, struct error *err)
{
    AUTO_BUF struct buf bytes = BUF(32768);
    struct ecdsa_key *key =
        ecdsa_key_from_pem(slice_str(vectors_str(f->root, "test_only_leaf_private_key_pem")), err);
    struct attest_document doc;
    enum attest_failure why;

    assert_int_equal(cose_sign1_write(payload, key, &bytes, err), 0);
    attest_verify(buf_slice(&bytes), &f->anchor, policy, NULL, &doc, &why, err);
    ecdsa_key_free(key);
    return why;
}

/* The first mistake in the order of the rules counts, and AWS's root is not ours. */
static void test_policy_and_order(void **state)
{
    const struct fixture *f = *state;
    json_t *row = document_named(f, "good");
    AUTO_BUF struct buf bytes = {0}, nonce = {0};
    struct attest_document doc;
    struct attest_policy policy;
    enum attest_failure why;
    struct error err = {0};
    uint8_t zero[ATTEST_PCR_LEN] = {0};

    policy_of(row, &policy, &nonce);
    vectors_base64(row, "document_base64", &bytes);
    assert_int_equal(
        attest_verify(buf_slice(&bytes), &attest_anchor_aws, &policy, NULL, &doc, &why, &err), -1);
    assert_int_equal(why, ATTEST_CHAIN_ROOT);
    assert_string_equal(err.msg,
                        "the document's root certificate is not AWS Nitro Enclaves root G1");

    policy.user_data = (struct attest_option){true, slice_str("other")};
    policy.public_key = (struct attest_option){true, slice_str("other")};
    attest_verify(buf_slice(&bytes), &f->anchor, &policy, NULL, &doc, &why, &err);
    assert_int_equal(why, ATTEST_USER_DATA);
    policy.user_data.bytes = doc.user_data.bytes;
    attest_verify(buf_slice(&bytes), &f->anchor, &policy, NULL, &doc, &why, &err);
    assert_int_equal(why, ATTEST_PUBLIC_KEY);
    policy.public_key.bytes = doc.public_key.bytes;
    attest_verify(buf_slice(&bytes), &f->anchor, &policy, NULL, &doc, &why, &err);
    assert_int_equal(why, ATTEST_OK);

    /* the age counts from the timestamp: 59877 ms at verify_time */
    policy.limit_age = true;
    policy.max_age_ms = 59877;
    assert_ok(attest_verify(buf_slice(&bytes), &f->anchor, &policy, NULL, &doc, &why, &err));
    policy.max_age_ms--;
    attest_verify(buf_slice(&bytes), &f->anchor, &policy, NULL, &doc, &why, &err);
    assert_int_equal(why, ATTEST_FRESHNESS);
    doc.timestamp_ms = UINT64_MAX;
    policy.limit_age = true;
    AUTO_BUF struct buf payload = BUF(ATTEST_DOCUMENT_MAX);
    assert_ok(attest_document_write(&doc, false, &payload, &err));
    assert_int_equal(verdict(f, buf_slice(&payload), &policy, &err), ATTEST_FRESHNESS);

    assert_int_equal(attest_policy_expect_pcr(&policy, 0, zero, &err), -1);
    assert_int_equal(err.kind, ERR_USAGE);
    assert_int_equal(attest_policy_expect_pcr(&policy, 32, zero, &err), -1);
    assert_int_equal(attest_policy_expect_pcr(&policy, 1, zero, &err), -1);
    assert_ok(attest_policy_expect_pcr(&policy, 1, policy.pcr[1], &err));
    memset(policy.pcr[0], 0, ATTEST_PCR_LEN);
    attest_verify(buf_slice(&bytes), &f->anchor, &policy, NULL, &doc, &why, &err);
    assert_int_equal(why, ATTEST_POLICY);
}

/* Mistakes that the vectors do not have; each document is correctly signed. */
static void test_more_bad_fields(void **state)
{
    const struct fixture *f = *state;
    json_t *row = document_named(f, "good");
    AUTO_BUF struct buf bytes = {0}, nonce = {0};
    struct attest_document good, doc;
    struct attest_policy policy;
    enum attest_failure why;
    struct error err = {0};
    static uint8_t big[ATTEST_CERTIFICATE_MAX + 1];
    static const struct {
        enum attest_failure want;
        const char *payload;
    } raw[] = {
        {ATTEST_FIELD_TYPE, "80"},       {ATTEST_FIELD_TYPE, "a10102"},
        {ATTEST_FIELD_TYPE, "d8186161"}, {ATTEST_FIELD_MISSING, "a0"},
        {ATTEST_FIELD_MISSING, "bfff"},  {ATTEST_CBOR, "bf"},
        {ATTEST_CBOR, "a2616101616102"}, {ATTEST_CBOR, "a16161fa00000000"},
        {ATTEST_CBOR, "a0a0"},
    };

    policy_of(row, &policy, &nonce);
    vectors_base64(row, "document_base64", &bytes);
    assert_ok(attest_inspect(buf_slice(&bytes), &good, &why, &err));
    for (size_t i = 0; i < ARRAY_LEN(raw); i++) {
        AUTO_BUF struct buf payload = {0};

        hex_slice(&payload, raw[i].payload);
        if (verdict(f, buf_slice(&payload), &policy, &err) != raw[i].want)
            fail_msg("%s: %s", raw[i].payload, err.msg);
    }
#define MUTANT(want, ...)                                                                          \
    do {                                                                                           \
        AUTO_BUF struct buf payload = BUF(ATTEST_DOCUMENT_MAX);                                    \
        doc = good;                                                                                \
        __VA_ARGS__;                                                                               \
        assert_ok(attest_document_write(&doc, false, &payload, &err));                             \
        assert_int_equal(verdict(f, buf_slice(&payload), &policy, &err), want);                    \
    } while (0)
    MUTANT(ATTEST_OK, (void)0);
    MUTANT(ATTEST_FIELD_VALUE, doc.digest = slice_str("SHA256"));
    MUTANT(ATTEST_FIELD_SIZE, doc.module_id = slice_of(big, 256));
    MUTANT(ATTEST_FIELD_SIZE, doc.certificate = slice_of(big, sizeof(big)));
    MUTANT(ATTEST_FIELD_SIZE, doc.certificate.len = 0);
    MUTANT(ATTEST_FIELD_SIZE, doc.cabundle[2] = slice_of(big, sizeof(big)));
    MUTANT(ATTEST_FIELD_SIZE, doc.cabundle[3].len = 0);
    MUTANT(ATTEST_FIELD_SIZE, doc.nonce = (struct attest_option){true, slice_of(big, 1025)});
    MUTANT(ATTEST_FIELD_SIZE, doc.public_key = (struct attest_option){true, slice_of(big, 1025)});
    MUTANT(ATTEST_CHAIN_CONSTRAINT, doc.certificate = slice_of(big, 10));
    MUTANT(ATTEST_CHAIN_ORDER, doc.certificate = doc.cabundle[3]);
    MUTANT(ATTEST_CHAIN_ORDER, doc.cabundle_len = 3);
    MUTANT(ATTEST_DEBUG, doc.pcrs &= ~1u; policy.pcrs = 0);
    MUTANT(ATTEST_PCR, policy.pcrs = 1u << 16);
#undef MUTANT
}

/* Any single flipped bit is refused: every byte is covered by some check. */
static void test_no_bit_can_flip(void **state)
{
    const struct fixture *f = *state;
    json_t *row = document_named(f, "good");
    AUTO_BUF struct buf bytes = {0}, nonce = {0};
    struct attest_document doc;
    struct attest_policy policy;
    enum attest_failure why;
    struct error err = {0};

    policy_of(row, &policy, &nonce);
    vectors_base64(row, "document_base64", &bytes);
    /* the prefix with every bit, then a sample: a verification costs milliseconds */
    for (size_t i = 0; i < bytes.len; i += i < 12 ? 1 : 37) {
        uint8_t bit = (uint8_t)(1u << (i % 8));

        bytes.ptr[i] ^= bit;
        if (attest_verify(buf_slice(&bytes), &f->anchor, &policy, NULL, &doc, &why, &err) == 0)
            fail_msg("accepted with bit %u of byte %zu flipped", bit, i);
        bytes.ptr[i] ^= bit;
    }
    for (size_t len = 0; len < bytes.len; len += 61) {
        assert_int_equal(
            attest_verify(slice_of(bytes.ptr, len), &f->anchor, &policy, NULL, &doc, &why, &err),
            -1);
        assert_int_equal(why, ATTEST_CBOR);
    }
}

/* The compiled-in root is the one whose fingerprint is known, and passes our own rules. */
static void test_root_of_aws(void **state)
{
    const struct fixture *f = *state;
    const struct attest_document doc = {.certificate = attest_anchor_aws.der,
                                        .cabundle = {attest_anchor_aws.der},
                                        .cabundle_len = 1};
    struct attest_chain chain = {0};
    AUTO_BUF struct buf want = {0};
    uint8_t fingerprint[SHA256_LEN];
    enum attest_failure why = ATTEST_OK;
    struct error err = {0};

    hash_once(HASH_SHA256, attest_anchor_aws.der, fingerprint);
    vectors_hex(json_object_get(f->root, "aws_root_g1"), "sha256_of_der", &want);
    assert_true(slice_equal(slice_of(fingerprint, sizeof(fingerprint)), buf_slice(&want)));
    assert_ok(attest_chain_check_root(&doc, &attest_anchor_aws, &why, &err));
    assert_ok(attest_chain_load(&chain, &doc, &why, &err));
    assert_ok(attest_chain_check_order(&chain, &why, &err));
    assert_ok(attest_chain_check_signatures(&chain, &why, &err));
    assert_ok(attest_chain_check_validity(&chain, 1768478460, &why, &err));
    /* as the root nothing is wrong with it; it stands in the leaf's place as well */
    assert_int_equal(attest_chain_check_constraints(&chain, &why, &err), -1);
    assert_string_equal(err.msg, "certificate 1 (leaf) is a CA");
    attest_chain_free(&chain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_vector),
        cmocka_unit_test(test_members_are_read),
        cmocka_unit_test(test_payload_is_written_as_devices_do),
        cmocka_unit_test(test_cose_both_ways),
        cmocka_unit_test(test_policy_and_order),
        cmocka_unit_test(test_more_bad_fields),
        cmocka_unit_test(test_no_bit_can_flip),
        cmocka_unit_test(test_root_of_aws),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
