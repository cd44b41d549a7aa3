#include "api/spki.h"

#define DER_SEQUENCE   0x30
#define DER_BIT_STRING 0x03

/* One element of the wanted type with a definite, minimal length (X.690 section 10.1). */
static bool take(struct reader *r, uint8_t tag, struct slice *content)
{
    uint8_t found, first, byte;
    size_t len = 0;

    if (!reader_u8(r, &found) || found != tag || !reader_u8(r, &first))
        return false;
    if (first < 0x80)
        return reader_take(r, first, content);
    if (first == 0x80 || first > 0x83)
        return false;
    for (unsigned int i = 0; i < (first & 0x7fu); i++) {
        if (!reader_u8(r, &byte) || (i == 0 && byte == 0))
            return false;
        len = len << 8 | byte;
    }
    return len >= 0x80 && reader_take(r, len, content);
}

int spki_key_bytes(struct slice der, struct slice *key, struct error *err)
{
    struct reader r = reader_of(der);
    struct slice spki, algorithm, bits;
    uint8_t unused;

    if (!take(&r, DER_SEQUENCE, &spki) || reader_left(&r) != 0)
        return error_set(err, ERR_INVALID, "not one DER SubjectPublicKeyInfo");
    r = reader_of(spki);
    if (!take(&r, DER_SEQUENCE, &algorithm) || !take(&r, DER_BIT_STRING, &bits) ||
        reader_left(&r) != 0)
        return error_set(err, ERR_INVALID, "not a DER SubjectPublicKeyInfo");
    r = reader_of(bits);
    if (!reader_u8(&r, &unused) || unused != 0 || reader_left(&r) == 0)
        return error_set(err, ERR_INVALID, "no whole public key in the SubjectPublicKeyInfo");
    return reader_take(&r, reader_left(&r), key) ? 0 : -1;
}
