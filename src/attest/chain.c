#include "attest/chain.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

void attest_chain_free(struct attest_chain *chain)
{
    for (size_t i = 0; i < chain->count; i++)
        X509_free(chain->cert[i]);
    chain->count = 0;
}

/* "certificate 4 (leaf)": positions as in the table of section 4.3. */
static int refuse(const struct attest_chain *chain, size_t i, enum attest_failure class,
                  enum attest_failure *why, struct error *err, const char *what)
{
    const char *role = i == 0 ? " (root)" : i + 1 == chain->count ? " (leaf)" : "";

    *why = class;
    ERR_clear_error();
    return error_set(err, ERR_CRYPTO, "certificate %zu%s %s", i, role, what);
}

int attest_chain_check_root(const struct attest_document *doc, const struct attest_anchor *anchor,
                            enum attest_failure *why, struct error *err)
{
    if (slice_equal(doc->cabundle[0], anchor->der))
        return 0;
    *why = ATTEST_CHAIN_ROOT;
    return error_set(err, ERR_CRYPTO, "the document's root certificate is not %s", anchor->name);
}

static X509 *parse_exactly(struct slice der)
{
    const uint8_t *p = der.ptr;
    X509 *cert = d2i_X509(NULL, &p, (long)der.len);

    if (cert && p != der.ptr + der.len) {
        X509_free(cert);
        cert = NULL;
    }
    return cert;
}

int attest_chain_load(struct attest_chain *chain, const struct attest_document *doc,
                      enum attest_failure *why, struct error *err)
{
    for (size_t i = 0; i <= doc->cabundle_len; i++) {
        X509 *cert = parse_exactly(i < doc->cabundle_len ? doc->cabundle[i] : doc->certificate);

        if (!cert)
            return refuse(chain, i, ATTEST_CHAIN_CONSTRAINT, why, err, "is not a DER certificate");
        chain->cert[chain->count++] = cert;
    }
    return 0;
}

/* The name as it was encoded; the library keeps those bytes. */
static struct slice name_der(X509_NAME *name)
{
    const unsigned char *der = NULL;
    size_t len = 0;

    if (X509_NAME_get0_der(name, &der, &len) != 1)
        return (struct slice){0};
    return slice_of(der, len);
}

int attest_chain_check_order(const struct attest_chain *chain, enum attest_failure *why,
                             struct error *err)
{
    for (size_t i = 1; i < chain->count; i++) {
        struct slice issuer = name_der(X509_get_issuer_name(chain->cert[i]));
        struct slice above = name_der(X509_get_subject_name(chain->cert[i - 1]));

        if (issuer.len == 0 || !slice_equal(issuer, above))
            return refuse(chain, i, ATTEST_CHAIN_ORDER, why, err,
                          "was not issued by the certificate before it");
    }
    return 0;
}

static bool is_ecdsa_sha384(const X509 *cert)
{
    const X509_ALGOR *outer;
    const ASN1_BIT_STRING *signature;

    X509_get0_signature(&signature, &outer, cert);
    return X509_get_signature_nid(cert) == NID_ecdsa_with_SHA384 &&
           X509_ALGOR_cmp(outer, X509_get0_tbs_sigalg(cert)) == 0;
}

/* id-ecPublicKey with the named curve secp384r1 and a point that lies on it. */
static bool is_p384(const X509 *cert)
{
    ASN1_OBJECT *algorithm = NULL;
    const void *param = NULL;
    X509_ALGOR *algor = NULL;
    int type = V_ASN1_UNDEF;

    if (X509_PUBKEY_get0_param(&algorithm, NULL, NULL, &algor, X509_get_X509_PUBKEY(cert)) != 1)
        return false;
    X509_ALGOR_get0(NULL, &type, &param, algor);
    return OBJ_obj2nid(algorithm) == NID_X9_62_id_ecPublicKey && type == V_ASN1_OBJECT &&
           OBJ_obj2nid(param) == NID_secp384r1 && X509_get0_pubkey(cert) != NULL;
}

static bool has_unknown_critical(const X509 *cert)
{
    static const int known[] = {NID_basic_constraints, NID_key_usage, NID_subject_key_identifier,
                                NID_authority_key_identifier, NID_crl_distribution_points};

    for (int i = 0; i < X509_get_ext_count(cert); i++) {
        X509_EXTENSION *ext = X509_get_ext(cert, i);
        int nid = OBJ_obj2nid(X509_EXTENSION_get_object(ext));
        bool is_known = false;

        for (size_t k = 0; k < ARRAY_LEN(known); k++)
            is_known = is_known || known[k] == nid;
        if (X509_EXTENSION_get_critical(ext) && !is_known)
            return true;
    }
    return false;
}

/* What is wrong with certificate i, or NULL. `below` is the number of CAs that follow it. */
static const char *constraint_fault(X509 *cert, bool leaf, size_t below)
{
    uint32_t flags = X509_get_extension_flags(cert), usage = X509_get_key_usage(cert);
    bool ca = (flags & EXFLAG_BCONS) && (flags & EXFLAG_CA);
    long pathlen = X509_get_pathlen(cert);

    if (X509_get_version(cert) != X509_VERSION_3)
        return "is not X.509 version 3";
    if (flags & EXFLAG_INVALID)
        return "has malformed extensions";
    if (!is_ecdsa_sha384(cert))
        return "is not signed with ecdsa-with-SHA384";
    if (!is_p384(cert))
        return "does not hold a P-384 key";
    if (has_unknown_critical(cert))
        return "has a critical extension that is not allowed here";
    if (!(flags & EXFLAG_KUSAGE))
        return "has no key usage";
    if (leaf)
        return ca                                ? "is a CA"
               : pathlen >= 0                    ? "has a path length"
               : !(usage & KU_DIGITAL_SIGNATURE) ? "may not sign"
                                                 : NULL;
    return !ca                                              ? "is not a CA"
           : !(usage & KU_KEY_CERT_SIGN)                    ? "may not sign certificates"
           : pathlen >= 0 && (unsigned long)pathlen < below ? "has too small a path length"
                                                            : NULL;
}

int attest_chain_check_constraints(const struct attest_chain *chain, enum attest_failure *why,
                                   struct error *err)
{
    for (size_t i = 0; i < chain->count; i++) {
        bool leaf = i + 1 == chain->count;
        const char *fault = constraint_fault(chain->cert[i], leaf, leaf ? 0 : chain->count - 2 - i);

        if (fault)
            return refuse(chain, i, ATTEST_CHAIN_CONSTRAINT, why, err, fault);
    }
    return 0;
}

int attest_chain_check_signatures(const struct attest_chain *chain, enum attest_failure *why,
                                  struct error *err)
{
    for (size_t i = 0; i < chain->count; i++) {
        X509 *issuer = chain->cert[i > 0 ? i - 1 : 0];

        if (X509_verify(chain->cert[i], X509_get0_pubkey(issuer)) != 1)
            return refuse(chain, i, ATTEST_CHAIN_SIGNATURE, why, err,
                          i ? "is not signed by the certificate before it" : "is not self-signed");
    }
    return 0;
}

int attest_chain_check_validity(const struct attest_chain *chain, int64_t unix_seconds,
                                enum attest_failure *why, struct error *err)
{
    for (size_t i = 0; i < chain->count; i++) {
        int start = ASN1_TIME_cmp_time_t(X509_get0_notBefore(chain->cert[i]), unix_seconds);
        int end = ASN1_TIME_cmp_time_t(X509_get0_notAfter(chain->cert[i]), unix_seconds);

        if (start == -2 || end == -2)
            return refuse(chain, i, ATTEST_CHAIN_VALIDITY, why, err, "has an unreadable date");
        if (start > 0)
            return refuse(chain, i, ATTEST_CHAIN_VALIDITY, why, err, "is not valid yet");
        if (end < 0)
            return refuse(chain, i, ATTEST_CHAIN_VALIDITY, why, err, "has expired");
    }
    return 0;
}
