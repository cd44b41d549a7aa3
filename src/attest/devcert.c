#include "attest/devcert.h"

#include "attest/document.h"

#include <openssl/asn1.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#define DAY      INT64_C(86400)
#define BACKDATE 3 /* seconds; for verifiers whose clock is a little behind */

struct extension {
    int nid;
    const char *value; /* in OpenSSL's configuration syntax */
};

/* Every row is a level; the order of its extensions is AWS's, which varies. */
static const struct level {
    int64_t lifetime;
    bool has_place; /* locality and state in the subject */
    struct extension ext[5];
} levels[DEVCERT_LEVELS] = {
    [DEVCERT_ROOT] = {10958 * DAY,
                      false,
                      {{NID_basic_constraints, "critical,CA:TRUE"},
                       {NID_subject_key_identifier, "hash"},
                       {NID_key_usage, "critical,digitalSignature,keyCertSign,cRLSign"}}},
    [DEVCERT_REGIONAL] = {20 * DAY,
                          false,
                          {{NID_basic_constraints, "critical,CA:TRUE,pathlen:2"},
                           {NID_authority_key_identifier, "keyid:always"},
                           {NID_subject_key_identifier, "hash"},
                           {NID_key_usage, "critical,digitalSignature,keyCertSign,cRLSign"}}},
    [DEVCERT_ZONAL] = {6 * DAY,
                       true,
                       {{NID_basic_constraints, "critical,CA:TRUE,pathlen:1"},
                        {NID_authority_key_identifier, "keyid:always"},
                        {NID_subject_key_identifier, "hash"},
                        {NID_key_usage, "critical,digitalSignature,keyCertSign,cRLSign"}}},
    [DEVCERT_INSTANCE] = {1 * DAY,
                          true,
                          {{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
                           {NID_key_usage, "critical,keyCertSign"},
                           {NID_subject_key_identifier, "hash"},
                           {NID_authority_key_identifier, "keyid:always"}}},
    [DEVCERT_LEAF] = {DAY / 8 + BACKDATE,
                      true,
                      {{NID_basic_constraints, "critical,CA:FALSE"},
                       {NID_key_usage, "digitalSignature,nonRepudiation"}}},
};

int64_t devcert_lifetime(enum devcert_level level)
{
    return levels[level].lifetime;
}

static bool add_name(X509_NAME *name, const char *field, const char *value)
{
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_ASC, (const unsigned char *)value, -1,
                                      -1, 0) == 1;
}

static bool set_subject(X509 *cert, const struct devcert_spec *spec)
{
    X509_NAME *name = X509_get_subject_name(cert);
    bool ok = add_name(name, "C", "US");

    if (levels[spec->level].has_place)
        ok = ok && add_name(name, "ST", "None") && add_name(name, "L", "Development");
    return ok && add_name(name, "O", "Capsule Development") && add_name(name, "OU", "Capsule") &&
           add_name(name, "CN", spec->common_name);
}

static bool set_serial(X509 *cert, const uint8_t serial[16])
{
    BIGNUM *n = BN_bin2bn(serial, 16, NULL);
    bool ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));

    BN_free(n);
    return ok;
}

static bool set_times(X509 *cert, const struct devcert_spec *spec)
{
    int64_t start = spec->now - BACKDATE;

    return ASN1_TIME_set(X509_getm_notBefore(cert), start) &&
           ASN1_TIME_set(X509_getm_notAfter(cert), start + levels[spec->level].lifetime);
}

static bool add_extensions(X509 *cert, const struct devcert_spec *spec)
{
    const struct level *level = &levels[spec->level];
    X509V3_CTX ctx;

    X509V3_set_ctx(&ctx, spec->issuer ? spec->issuer : cert, cert, NULL, NULL, 0);
    for (size_t i = 0; i < ARRAY_LEN(level->ext) && level->ext[i].value; i++) {
        X509_EXTENSION *ext =
            X509V3_EXT_nconf_nid(NULL, &ctx, level->ext[i].nid, level->ext[i].value);
        bool ok = ext && X509_add_ext(cert, ext, -1) == 1;

        X509_EXTENSION_free(ext);
        if (!ok)
            return false;
    }
    return true;
}

X509 *devcert_make(const struct devcert_spec *spec, struct error *err)
{
    X509 *cert = X509_new();
    X509_NAME *issuer;

    if (cert && X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert, spec->serial) &&
        set_subject(cert, spec) && set_times(cert, spec) && X509_set_pubkey(cert, spec->key) == 1) {
        issuer = X509_get_subject_name(spec->issuer ? spec->issuer : cert);
        if (X509_set_issuer_name(cert, issuer) == 1 && add_extensions(cert, spec) &&
            X509_sign(cert, spec->signer, EVP_sha384()) > 0)
            return cert;
    }
    X509_free(cert);
    error_set(err, ERR_CRYPTO, "cannot make the certificate of %s: %s", spec->common_name,
              ERR_reason_error_string(ERR_peek_last_error()));
    ERR_clear_error();
    return NULL;
}

int devcert_to_der(X509 *cert, struct buf *out, struct error *err)
{
    unsigned char *der = NULL;
    int len = i2d_X509(cert, &der), ret = -1;

    if (len > 0 && len <= ATTEST_CERTIFICATE_MAX)
        ret = buf_append(out, der, (size_t)len);
    OPENSSL_free(der);
    return ret < 0 ? error_set(err, ERR_INTERNAL, "a certificate does not fit in %d bytes",
                               ATTEST_CERTIFICATE_MAX)
                   : 0;
}
