#include "attest/describe.h"

#include "base/text.h"
#include "crypto/hash.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <time.h>

static char *name_text(X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *bytes = NULL, *text;
    long len;

    if (!bio || X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) < 0) {
        BIO_free(bio);
        return xstrdup("?");
    }
    len = BIO_get_mem_data(bio, &bytes);
    text = slice_dup_str(slice_of(bytes, (size_t)len));
    BIO_free(bio);
    return text;
}

/* Hex of the magnitude; certificates here are small, so the number is too. */
static char *serial_text(const X509 *cert)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);

    return hex_encode_dup(
        "", slice_of(ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial)));
}

static int64_t seconds_of(const ASN1_TIME *time)
{
    struct tm tm;

    return ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

int attest_certificate_describe(struct slice der, struct attest_certificate_info *out,
                                struct error *err)
{
    const uint8_t *p = der.ptr;
    X509 *cert = der.len && der.len <= INT32_MAX ? d2i_X509(NULL, &p, (long)der.len) : NULL;

    if (!cert || p != der.ptr + der.len) {
        X509_free(cert);
        ERR_clear_error();
        return error_set(err, ERR_INVALID, "not a DER certificate");
    }
    out->subject = name_text(X509_get_subject_name(cert));
    out->issuer = name_text(X509_get_issuer_name(cert));
    out->serial = serial_text(cert);
    out->not_before = seconds_of(X509_get0_notBefore(cert));
    out->not_after = seconds_of(X509_get0_notAfter(cert));
    hash_once(HASH_SHA256, der, out->sha256);
    X509_free(cert);
    return 0;
}

void attest_certificate_info_free(struct attest_certificate_info *info)
{
    free(info->subject);
    free(info->issuer);
    free(info->serial);
    *info = (struct attest_certificate_info){0};
}
