/* Certificate chains with one mistake each: every rule of step 4 alone makes the difference. */
#include "unit.h"

#include "attest/chain.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#define LEVELS 5
#define LEAF   (LEVELS - 1)
#define NOW    1768478460

struct extension {
    int nid;
    const char *value;
};

/* How a chain departs from a good one, at `level`. */
struct row {
    enum attest_failure want;
    const char *what;
    int level;
    const char *bc;         /* basicConstraints instead of the usual; "" for none */
    const char *ku;         /* keyUsage likewise */
    struct extension extra; /* one more */
    const char *group;      /* curve of the key */
    const char *digest;     /* of the signature */
    bool version1;
    bool wrong_signer; /* signed with its own key */
    bool wrong_issuer; /* names another issuer */
    int64_t from, to;  /* lifetime relative to NOW */
    bool trailing;     /* a byte after the certificate */
};

static const struct row rows[] = {
    {ATTEST_OK, "nothing wrong", 0},
    {ATTEST_OK, "no pathlen anywhere below", 1, .bc = "critical,CA:TRUE"},
    {ATTEST_OK, "larger pathlen", 2, .bc = "critical,CA:TRUE,pathlen:7"},
    {ATTEST_OK, "leaf without basicConstraints", LEAF, .bc = ""},
    {ATTEST_OK, "unknown extension", LEAF, .extra = {NID_ext_key_usage, "serverAuth"}},
    {ATTEST_OK, "valid to the second", 2, .from = -1, .to = 0},
    {ATTEST_OK, "valid from the second", 2, .from = 0, .to = 1},
    {ATTEST_CHAIN_CONSTRAINT, "CA:FALSE in the middle", 2, .bc = "critical,CA:FALSE"},
    {ATTEST_CHAIN_CONSTRAINT, "no basicConstraints", 3, .bc = ""},
    {ATTEST_CHAIN_CONSTRAINT, "pathlen too small", 1, .bc = "critical,CA:TRUE,pathlen:1"},
    {ATTEST_CHAIN_CONSTRAINT, "root's pathlen too small", 0, .bc = "critical,CA:TRUE,pathlen:2"},
    {ATTEST_CHAIN_CONSTRAINT, "CA may not sign certificates", 2, .ku = "critical,cRLSign"},
    {ATTEST_CHAIN_CONSTRAINT, "CA without keyUsage", 2, .ku = ""},
    {ATTEST_CHAIN_CONSTRAINT, "leaf is a CA", LEAF, .bc = "critical,CA:TRUE"},
    {ATTEST_CHAIN_CONSTRAINT, "leaf may not sign", LEAF, .ku = "keyAgreement"},
    {ATTEST_CHAIN_CONSTRAINT, "leaf without keyUsage", LEAF, .ku = ""},
    {ATTEST_CHAIN_CONSTRAINT, "unknown critical extension", 2,
     .extra = {NID_name_constraints, "critical,permitted;DNS:x"}},
    {ATTEST_CHAIN_CONSTRAINT, "critical extended key usage", LEAF,
     .extra = {NID_ext_key_usage, "critical,serverAuth"}},
    {ATTEST_CHAIN_CONSTRAINT, "an extension twice", LEAF,
     .extra = {NID_basic_constraints, "CA:FALSE"}},
    {ATTEST_CHAIN_CONSTRAINT, "P-256 key", LEAF, .group = "P-256"},
    {ATTEST_CHAIN_CONSTRAINT, "P-521 CA", 3, .group = "P-521"},
    {ATTEST_CHAIN_CONSTRAINT, "signed over SHA-256", 3, .digest = "SHA256"},
    {ATTEST_CHAIN_CONSTRAINT, "version 1", LEAF, .version1 = true},
    {ATTEST_CHAIN_CONSTRAINT, "a byte too many", LEAF, .trailing = true},
    {ATTEST_CHAIN_ORDER, "names another issuer", 3, .wrong_issuer = true},
    {ATTEST_CHAIN_SIGNATURE, "signed by itself", 3, .wrong_signer = true},
    {ATTEST_CHAIN_VALIDITY, "root expired", 0, .from = -100, .to = -1},
    {ATTEST_CHAIN_VALIDITY, "leaf expired", LEAF, .from = -100, .to = -1},
    {ATTEST_CHAIN_VALIDITY, "not yet valid", 1, .from = 1, .to = 100},
};

static void add_name(X509_NAME *name, const char *text)
{
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)text, -1, -1, 0);
}

static void add_extension(X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *ext;
    X509V3_CTX ctx;

    if (!value || !*value)
        return;
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    ext = X509V3_EXT_nconf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    assert_int_equal(X509_add_ext(cert, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

static void make(const struct row *row, int level, EVP_PKEY **keys, struct buf *out)
{
    static const char *const bc[LEVELS] = {"critical,CA:TRUE", "critical,CA:TRUE,pathlen:2",
                                           "critical,CA:TRUE,pathlen:1",
                                           "critical,CA:TRUE,pathlen:0", "critical,CA:FALSE"};
    static const struct row good = {.what = ""};
    const struct row *r = row->level == level ? row : &good;
    const char *ku = level == LEAF ? "digitalSignature" : "critical,keyCertSign";
    X509 *cert = X509_new();
    char name[32];
    uint8_t *der = NULL;
    EVP_PKEY *signer;
    int len;

    keys[level] = EVP_EC_gen(r->group ? r->group : "P-384");
    signer = r->wrong_signer || level == 0 ? keys[level] : keys[level - 1];
    snprintf(name, sizeof(name), "level %d", level);
    add_name(X509_get_subject_name(cert), name);
    snprintf(name, sizeof(name), r->wrong_issuer ? "level x" : "level %d", level ? level - 1 : 0);
    add_name(X509_get_issuer_name(cert), name);
    X509_set_version(cert, r->version1 ? X509_VERSION_1 : X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), level + 1);
    ASN1_TIME_set(X509_getm_notBefore(cert), NOW + (r->from || r->to ? r->from : -50));
    ASN1_TIME_set(X509_getm_notAfter(cert), NOW + (r->from || r->to ? r->to : 50));
    X509_set_pubkey(cert, keys[level]);
    if (!r->version1) {
        add_extension(cert, NID_basic_constraints, r->bc ? r->bc : bc[level]);
        add_extension(cert, NID_key_usage, r->ku ? r->ku : ku);
        add_extension(cert, r->extra.nid, r->extra.value);
    }
    assert_true(X509_sign(cert, signer, EVP_get_digestbyname(r->digest ? r->digest : "SHA384")));
    len = i2d_X509(cert, &der);
    *out = BUF(2048);
    assert_int_equal(buf_append(out, der, (size_t)len), 0);
    if (r->trailing)
        assert_int_equal(buf_append_byte(out, 0), 0);
    OPENSSL_free(der);
    X509_free(cert);
}

static enum attest_failure verdict(const struct buf der[LEVELS], struct error *err)
{
    struct attest_document doc = {.cabundle_len = LEAF, .certificate = buf_slice(&der[LEAF])};
    const struct attest_anchor anchor = {"the root", buf_slice(&der[0])};
    enum attest_failure why = ATTEST_OK;
    struct attest_chain chain = {0};

    for (size_t i = 0; i < LEAF; i++)
        doc.cabundle[i] = buf_slice(&der[i]);
    (void)!(attest_chain_check_root(&doc, &anchor, &why, err) < 0 ||
            attest_chain_load(&chain, &doc, &why, err) < 0 ||
            attest_chain_check_order(&chain, &why, err) < 0 ||
            attest_chain_check_constraints(&chain, &why, err) < 0 ||
            attest_chain_check_signatures(&chain, &why, err) < 0 ||
            attest_chain_check_validity(&chain, NOW, &why, err) < 0);
    attest_chain_free(&chain);
    return why;
}

static void test_one_mistake_each(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf der[LEVELS] = {{0}};
        EVP_PKEY *keys[LEVELS];
        struct error err = {0};
        enum attest_failure got;

        for (int level = 0; level < LEVELS; level++)
            make(&rows[i], level, keys, &der[level]);
        got = verdict(der, &err);
        if (got != rows[i].want)
            fail_msg("%s: %s (%s)", rows[i].what, attest_failure_name(got), err.msg);
        for (int level = 0; level < LEVELS; level++) {
            EVP_PKEY_free(keys[level]);
            buf_free(&der[level]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_mistake_each),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
