#include "crypto/hash.h"
#include "crypto/pem.h"
#include "eif/sign.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <time.h>

static void cleanup_x509(X509 **x)
{
    X509_free(*x);
}

static void cleanup_bio(BIO **b)
{
    BIO_free(*b);
}

/* A name as RFC 2253 text with control characters and non-ASCII escaped. */
static char *name_text(const X509_NAME *name)
{
    CLEANUP(cleanup_bio) BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    long len;

    if (!bio || X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) < 0)
        return xstrdup("?");
    len = BIO_get_mem_data(bio, &text);
    return xstrndup(text, len > 0 ? (size_t)len : 0);
}

static int seconds_of(const ASN1_TIME *when, int64_t *out, struct error *err)
{
    struct tm tm;

    if (!when || !ASN1_TIME_to_tm(when, &tm))
        return error_set(err, ERR_INVALID, "the signing certificate has a malformed date");
    *out = timegm(&tm);
    return 0;
}

static X509 *decode(struct slice der)
{
    const unsigned char *p = der.ptr;
    X509 *x = d2i_X509(NULL, &p, (long)der.len);

    if (x && p == der.ptr + der.len)
        return x;
    X509_free(x);
    ERR_clear_error();
    return NULL;
}

static int parse(struct slice pem, struct eif_certificate *c, struct error *err)
{
    CLEANUP(cleanup_x509) X509 *x = NULL;
    uint8_t digest[SHA384_LEN];

    if (pem_decode("CERTIFICATE", pem, &c->der, err) < 0)
        return error_wrap(err, "the signing certificate");
    x = decode(buf_slice(&c->der));
    if (!x)
        return error_set(err, ERR_INVALID, "the signing certificate is not X.509");
    if (seconds_of(X509_get0_notBefore(x), &c->not_before, err) < 0 ||
        seconds_of(X509_get0_notAfter(x), &c->not_after, err) < 0)
        return -1;
    c->subject = name_text(X509_get_subject_name(x));
    c->issuer = name_text(X509_get_issuer_name(x));
    c->key = ecdsa_pub_from_cert(buf_slice(&c->der), NULL);
    hash_once(HASH_SHA384, buf_slice(&c->der), digest);
    eif_extend(digest, c->pcr8);
    return 0;
}

int eif_certificate_parse(struct slice pem, struct eif_certificate *out, struct error *err)
{
    int rc;

    *out = EIF_CERTIFICATE_NONE;
    rc = parse(pem, out, err);
    if (rc < 0)
        eif_certificate_free(out);
    return rc;
}

void eif_certificate_free(struct eif_certificate *c)
{
    buf_free(&c->der);
    free(c->subject);
    free(c->issuer);
    ecdsa_pub_free(c->key);
    *c = EIF_CERTIFICATE_NONE;
}
