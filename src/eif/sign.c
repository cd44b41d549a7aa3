#include "eif/sign.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "codec/cbor.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define PEM_MAX    16384 /* bytes of a key or certificate file: what EIF_SIGNATURE_MAX can carry */
#define DAY        86400
#define SMALL_COSE 1024 /* bytes of anything in a COSE_Sign1 of ours */

struct eif_signer {
    struct ecdsa_key *key;
    struct buf pem;
    struct eif_certificate certificate;
};

static void cleanup_pub(struct ecdsa_pub **p)
{
    ecdsa_pub_free(*p);
}

/* ---- the signer ---- */

static void format_day(int64_t seconds, char out[40])
{
    time_t t = (time_t)seconds;
    struct tm tm = {0};

    gmtime_r(&t, &tm);
    strftime(out, 40, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static int check_validity(const struct eif_certificate *c, int64_t now, struct error *err)
{
    char when[40];

    if (now < c->not_before) {
        format_day(c->not_before, when);
        return error_set(err, ERR_CRYPTO, "the signing certificate is not valid before %s", when);
    }
    if (now > c->not_after) {
        format_day(c->not_after, when);
        error_set(err, ERR_CRYPTO, "the signing certificate ran out at %s", when);
        return error_hint(err, "the platform does not start an image with such a certificate: sign "
                               "it again with a valid one");
    }
    return 0;
}

static int check_signer(const struct eif_signer *s, int64_t now, struct error *err)
{
    CLEANUP(cleanup_pub) struct ecdsa_pub *own = ecdsa_pub_of_key(s->key);

    if (!s->certificate.key)
        return error_set(err, ERR_UNSUPPORTED,
                         "the signing certificate's key is not ECDSA on P-256, P-384 or P-521");
    if (!ecdsa_pub_equal(own, s->certificate.key))
        return error_set(err, ERR_CRYPTO,
                         "the signing certificate (%s) does not belong to the private key",
                         s->certificate.subject);
    if (check_validity(&s->certificate, now, err) < 0)
        return -1;
    if (s->certificate.not_after - now < (int64_t)EIF_CERTIFICATE_WARN_DAYS * DAY)
        log_warn("eif", "signing certificate runs out soon; the image will not start after that",
                 kv_int("days", (s->certificate.not_after - now) / DAY),
                 kv_str("subject", s->certificate.subject));
    return 0;
}

struct eif_signer *eif_signer_new(struct slice key, struct slice certificate, int64_t now,
                                  struct error *err)
{
    AUTO_EIF_SIGNER struct eif_signer *s = xcalloc(1, sizeof(*s));
    struct eif_signer *out;

    s->certificate = EIF_CERTIFICATE_NONE;
    s->pem = BUF(PEM_MAX);
    s->key = ecdsa_key_from_pem(key, err);
    if (!s->key)
        return NULL;
    if (buf_append(&s->pem, certificate.ptr, certificate.len) < 0) {
        error_set(err, ERR_LIMIT, "the signing certificate's file has more than %d bytes", PEM_MAX);
        return NULL;
    }
    if (eif_certificate_parse(certificate, &s->certificate, err) < 0 ||
        check_signer(s, now, err) < 0)
        return NULL;
    out = s;
    s = NULL;
    return out;
}

struct eif_signer *eif_signer_load(const char *key_path, const char *certificate_path,
                                   struct error *err)
{
    AUTO_BUF struct buf key = BUF_SECRET(PEM_MAX);
    AUTO_BUF struct buf certificate = BUF(PEM_MAX);
    struct eif_signer *s;

    if (file_read(key_path, &key, err) < 0 || file_read(certificate_path, &certificate, err) < 0)
        return NULL;
    s = eif_signer_new(buf_slice(&key), buf_slice(&certificate),
                       clock_real_ns() / INT64_C(1000000000), err);
    if (!s)
        error_wrap(err, "signing with %s and %s", key_path, certificate_path);
    return s;
}

void eif_signer_free(struct eif_signer *s)
{
    if (!s)
        return;
    ecdsa_key_free(s->key);
    buf_free(&s->pem);
    eif_certificate_free(&s->certificate);
    free(s);
}

const struct eif_certificate *eif_signer_certificate(const struct eif_signer *s)
{
    return &s->certificate;
}

/* ---- encoding ---- */

static void put_protected(struct cbor_writer *w, enum ecdsa_curve curve)
{
    cbor_put_map(w, 1);
    cbor_put_uint(w, 1);
    cbor_put_int(w, ecdsa_cose_alg(curve));
}

/* The form that readers in the field insist on: a byte string as an array of integers. */
static void put_integers(struct cbor_writer *w, struct slice bytes)
{
    cbor_put_array(w, bytes.len);
    for (size_t i = 0; i < bytes.len; i++)
        cbor_put_uint(w, bytes.ptr[i]);
}

static void put_payload(struct cbor_writer *w, const uint8_t *pcr0)
{
    cbor_put_map(w, 2);
    cbor_put_cstr(w, "register_index");
    cbor_put_uint(w, 0);
    cbor_put_cstr(w, "register_value");
    put_integers(w, slice_of(pcr0, EIF_PCR_LEN));
}

/* RFC 9052 section 4.4: the bytes that are signed. */
static void put_sig_structure(struct cbor_writer *w, struct slice protected, struct slice payload)
{
    cbor_put_array(w, 4);
    cbor_put_cstr(w, "Signature1");
    cbor_put_bytes(w, protected);
    cbor_put_bytes(w, slice_of("", 0));
    cbor_put_bytes(w, payload);
}

static int sign_cose(const struct eif_signer *s, const uint8_t *pcr0, struct buf *out,
                     struct error *err)
{
    AUTO_BUF struct buf protected = BUF(SMALL_COSE);
    AUTO_BUF struct buf payload = BUF(SMALL_COSE);
    AUTO_BUF struct buf message = BUF(SMALL_COSE);
    enum ecdsa_curve curve = ecdsa_key_curve(s->key);
    uint8_t signature[ECDSA_SIGNATURE_MAX];
    struct cbor_writer w = {.out = &protected};

    put_protected(&w, curve);
    w.out = &payload;
    put_payload(&w, pcr0);
    w.out = &message;
    put_sig_structure(&w, buf_slice(&protected), buf_slice(&payload));
    if (w.failed)
        return error_set(err, ERR_INTERNAL, "encoding the image's signature");
    if (ecdsa_sign(s->key, buf_slice(&message), signature, err) < 0)
        return -1;
    w.out = out;
    cbor_put_array(&w, 4);
    cbor_put_bytes(&w, buf_slice(&protected));
    cbor_put_map(&w, 0);
    cbor_put_bytes(&w, buf_slice(&payload));
    cbor_put_bytes(&w, slice_of(signature, ecdsa_signature_len(curve)));
    return w.failed ? error_set(err, ERR_INTERNAL, "encoding the image's signature") : 0;
}

int eif_signature_encode(const struct eif_signer *signer, const uint8_t pcr0[EIF_PCR_LEN],
                         struct buf *out, struct error *err)
{
    AUTO_BUF struct buf cose = BUF(SMALL_COSE);
    struct cbor_writer w = {.out = out};

    if (sign_cose(signer, pcr0, &cose, err) < 0)
        return -1;
    cbor_put_array(&w, 1);
    cbor_put_map(&w, 2);
    cbor_put_cstr(&w, "signing_certificate");
    put_integers(&w, buf_slice(&signer->pem));
    cbor_put_cstr(&w, "signature");
    put_integers(&w, buf_slice(&cose));
    if (w.failed) {
        error_set(err, ERR_LIMIT, "the image's signature section would have more than %d bytes",
                  EIF_SIGNATURE_MAX);
        return error_hint(err, "give a certificate file with the signing certificate only");
    }
    return 0;
}

/* ---- decoding ---- */

static int malformed(struct error *err, const char *what)
{
    return error_set(err, ERR_INVALID, "malformed signature section: %s", what);
}

static int take_integers(const struct cbor_item *array, uint8_t *out, size_t len)
{
    struct cbor_iter it = cbor_iter_of(array);
    struct cbor_item e;

    if (array->type != CBOR_ARRAY || array->n != len)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (!cbor_next(&it, &e) || e.type != CBOR_UINT || e.n > 255)
            return -1;
        out[i] = (uint8_t)e.n;
    }
    return 0;
}

/* The next entry must have this key and an array of bytes as its value. */
static int take_member(struct cbor_iter *it, const char *key, struct buf *out, struct error *err)
{
    struct cbor_item k, v;
    uint8_t *to;

    if (!cbor_next_entry(it, &k, &v) || k.type != CBOR_TEXT || !slice_equal_str(k.str, key))
        return error_set(err, ERR_INVALID,
                         "malformed signature section: its keys are not signing_certificate and "
                         "signature, in this order");
    to = v.type == CBOR_ARRAY && v.n <= out->max ? buf_reserve(out, (size_t)v.n) : NULL;
    if (!to || take_integers(&v, to, (size_t)v.n) < 0)
        return error_set(err, ERR_INVALID,
                         "malformed signature section: %s is not an array of bytes", key);
    out->len += (size_t)v.n;
    return 0;
}

static int decode(struct slice section, struct eif_signature *s, struct error *err)
{
    struct cbor_item list, first = {0};
    struct cbor_iter it;

    if (section.len > EIF_SIGNATURE_MAX)
        return error_set(err, ERR_LIMIT, "the signature section has %zu bytes, the limit is %d",
                         section.len, EIF_SIGNATURE_MAX);
    if (cbor_parse(section, &list, err) < 0)
        return error_wrap(err, "malformed signature section");
    it = cbor_iter_of(&list);
    if (list.type != CBOR_ARRAY || list.n != 1 || !cbor_next(&it, &first))
        return malformed(err, "it is not a list of one signature");
    if (first.type != CBOR_MAP || first.n != 2)
        return malformed(err, "the signature is not a map of two entries");
    it = cbor_iter_of(&first);
    if (take_member(&it, "signing_certificate", &s->certificate_pem, err) < 0)
        return -1;
    return take_member(&it, "signature", &s->cose, err);
}

int eif_signature_decode(struct slice section, struct eif_signature *out, struct error *err)
{
    int rc;

    *out = EIF_SIGNATURE_NONE;
    rc = decode(section, out, err);
    if (rc < 0)
        eif_signature_free(out);
    return rc;
}

int eif_signature_read(int fd, const char *name, const struct eif_section *section,
                       struct eif_signature *out, struct error *err)
{
    AUTO_BUF struct buf bytes = BUF(EIF_SIGNATURE_MAX);

    if (eif_read_section(fd, name, section, &bytes, err) < 0)
        return -1;
    return eif_signature_decode(buf_slice(&bytes), out, err);
}

void eif_signature_free(struct eif_signature *s)
{
    buf_free(&s->certificate_pem);
    buf_free(&s->cose);
}

/* ---- verification ---- */

struct cose {
    struct cbor_item protected;
    struct cbor_item unprotected;
    struct cbor_item payload;
    struct cbor_item signature;
};

static int parse_cose(struct slice bytes, struct cose *out, struct error *err)
{
    struct cbor_item list;
    struct cbor_iter it;

    if (cbor_parse(bytes, &list, err) < 0)
        return error_wrap(err, "malformed image signature");
    it = cbor_iter_of(&list);
    if (list.type != CBOR_ARRAY || list.n != 4 || !cbor_next(&it, &out->protected) ||
        !cbor_next(&it, &out->unprotected) || !cbor_next(&it, &out->payload) ||
        !cbor_next(&it, &out->signature) || out->protected.type != CBOR_BYTES ||
        out->unprotected.type != CBOR_MAP || out->payload.type != CBOR_BYTES ||
        out->signature.type != CBOR_BYTES)
        return error_set(err, ERR_INVALID, "malformed image signature: not an untagged COSE_Sign1");
    return 0;
}

static int check_algorithm(const struct cose *c, const struct eif_certificate *certificate,
                           struct error *err)
{
    struct cbor_item map, alg;
    int64_t want;

    if (!certificate->key)
        return error_set(err, ERR_UNSUPPORTED,
                         "the signing certificate's key is not ECDSA on P-256, P-384 or P-521");
    if (cbor_parse(c->protected.str, &map, NULL) < 0 || !cbor_map_get_uint(&map, 1, &alg))
        return error_set(err, ERR_INVALID, "malformed image signature: no algorithm");
    want = ecdsa_cose_alg(ecdsa_pub_curve(certificate->key));
    if (alg.type != CBOR_NINT || alg.n != (uint64_t)(-1 - want))
        return error_set(err, ERR_CRYPTO,
                         "the image signature's algorithm is not the one of its certificate's key");
    return 0;
}

static int check_payload(const struct cose *c, const uint8_t *pcr0, struct error *err)
{
    uint8_t value[EIF_PCR_LEN];
    struct cbor_item map, item;

    if (cbor_parse(c->payload.str, &map, NULL) < 0 ||
        !cbor_map_get(&map, "register_index", &item) || item.type != CBOR_UINT)
        return error_set(err, ERR_INVALID, "malformed image signature: no register in its payload");
    if (item.n != 0)
        return error_set(err, ERR_CRYPTO, "the image signature is about PCR%" PRIu64 ", not PCR0",
                         item.n);
    if (!cbor_map_get(&map, "register_value", &item) ||
        take_integers(&item, value, sizeof(value)) < 0)
        return error_set(err, ERR_INVALID, "malformed image signature: no value in its payload");
    if (memcmp(value, pcr0, sizeof(value)) != 0)
        return error_set(err, ERR_CRYPTO, "the image signature is about another PCR0");
    return 0;
}

int eif_signature_verify(const struct eif_signature *s, const struct eif_certificate *certificate,
                         const uint8_t pcr0[EIF_PCR_LEN], int64_t now, struct error *err)
{
    AUTO_BUF struct buf message = BUF(EIF_SIGNATURE_MAX);
    struct cbor_writer w = {.out = &message};
    struct cose c = {0};

    if (parse_cose(buf_slice(&s->cose), &c, err) < 0 || check_algorithm(&c, certificate, err) < 0)
        return -1;
    put_sig_structure(&w, c.protected.str, c.payload.str);
    if (w.failed)
        return error_set(err, ERR_INVALID, "malformed image signature: too large");
    if (!ecdsa_verify(certificate->key, buf_slice(&message), c.signature.str))
        return error_set(err, ERR_CRYPTO, "the image signature is wrong");
    if (check_payload(&c, pcr0, err) < 0)
        return -1;
    return check_validity(certificate, now, err);
}
