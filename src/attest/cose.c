#include "attest/cose.h"

#define HEADER_ALG        1
#define PROTECTED_LEN_MAX 16

static int bad_form(struct error *err, const char *what)
{
    return error_set(err, ERR_INVALID, "not a COSE_Sign1: %s", what);
}

int cose_sign1_read(const struct cbor_item *item, struct cose_sign1 *out, struct error *err)
{
    static const enum cbor_type types[] = {CBOR_BYTES, CBOR_MAP, CBOR_BYTES, CBOR_BYTES};
    struct cbor_item array = *item, part[ARRAY_LEN(types)];
    struct cbor_iter it;

    if (item->type == CBOR_TAG) {
        it = cbor_iter_of(item);
        if (item->n != COSE_TAG_SIGN1 || !cbor_next(&it, &array))
            return bad_form(err, "another tag than 18");
    }
    if (array.type != CBOR_ARRAY || array.n != ARRAY_LEN(types))
        return bad_form(err, "not an array of four");
    it = cbor_iter_of(&array);
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (!cbor_next(&it, &part[i]) || part[i].type != types[i])
            return bad_form(err, "its parts are not bytes, map, bytes, bytes");
    out->protected = part[0].str;
    out->payload = part[2].str;
    out->signature = part[3].str;
    return 0;
}

int cose_sign1_alg(const struct cose_sign1 *sign1, int64_t *alg, struct error *err)
{
    struct cbor_item header, value;

    if (cbor_parse(sign1->protected, &header, err) < 0)
        return error_wrap(err, "protected header");
    if (header.type != CBOR_MAP || header.n != 1 ||
        !cbor_map_get_uint(&header, HEADER_ALG, &value) ||
        (value.type != CBOR_UINT && value.type != CBOR_NINT) || value.n > INT32_MAX)
        return error_set(err, ERR_INVALID, "the protected header is not {1: algorithm}");
    *alg = value.type == CBOR_UINT ? (int64_t)value.n : -1 - (int64_t)value.n;
    return 0;
}

/* Sig_structure (RFC 9052 section 4.4): what is signed, for an empty external_aad. */
static void signed_bytes(struct slice protected, struct slice payload, struct buf *out)
{
    struct cbor_writer w = {.out = out};

    *out = BUF(payload.len + protected.len + 64);
    cbor_put_array(&w, 4);
    cbor_put_cstr(&w, "Signature1");
    cbor_put_bytes(&w, protected);
    cbor_put_bytes(&w, (struct slice){0});
    cbor_put_bytes(&w, payload);
}

bool cose_sign1_verify(const struct cose_sign1 *sign1, const struct ecdsa_pub *pub)
{
    AUTO_BUF struct buf message = {0};

    signed_bytes(sign1->protected, sign1->payload, &message);
    return ecdsa_verify(pub, buf_slice(&message), sign1->signature);
}

int cose_sign1_write(struct slice payload, const struct ecdsa_key *key, struct buf *out,
                     struct error *err)
{
    AUTO_BUF struct buf header = BUF(PROTECTED_LEN_MAX), message = {0};
    struct cbor_writer h = {.out = &header}, w = {.out = out};
    uint8_t signature[ECDSA_SIGNATURE_MAX];

    cbor_put_map(&h, 1);
    cbor_put_uint(&h, HEADER_ALG);
    cbor_put_int(&h, ecdsa_cose_alg(ecdsa_key_curve(key)));
    signed_bytes(buf_slice(&header), payload, &message);
    if (ecdsa_sign(key, buf_slice(&message), signature, err) < 0)
        return -1;
    cbor_put_array(&w, 4);
    cbor_put_bytes(&w, buf_slice(&header));
    cbor_put_map(&w, 0);
    cbor_put_bytes(&w, payload);
    cbor_put_bytes(&w, slice_of(signature, ecdsa_signature_len(ecdsa_key_curve(key))));
    return w.failed ? error_set(err, ERR_LIMIT, "no room for the COSE_Sign1") : 0;
}
