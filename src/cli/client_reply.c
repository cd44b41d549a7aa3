#include "cli/client_reply.h"

#include "codec/json.h"

static int read_hex(const json_t *object, const char *name, struct buf *out, struct error *err)
{
    struct slice text;

    if (client_member(object, name, &text, err) < 0)
        return -1;
    return client_hex(name, text, out, err);
}

static int read_nonce(const json_t *object, uint8_t *out, struct error *err)
{
    AUTO_BUF struct buf nonce = BUF(P384_BOX_NONCE_LEN);

    if (read_hex(object, "nonce", &nonce, err) < 0)
        return -1;
    if (nonce.len != P384_BOX_NONCE_LEN)
        return error_set(err, ERR_INVALID, "nonce has %zu bytes, not %d", nonce.len,
                         P384_BOX_NONCE_LEN);
    memcpy(out, nonce.ptr, nonce.len);
    return 0;
}

int client_message_nonce(struct slice text, uint8_t *nonce, struct error *err)
{
    AUTO_JSON json_t *object = NULL;

    if (json_read_object(text, &object, NULL, err) < 0)
        return -1;
    return read_nonce(object, nonce, err);
}

int client_reply_parse(struct slice text, struct client_reply *out, struct error *err)
{
    AUTO_BUF struct buf spki = BUF(P384_SPKI_LEN);
    AUTO_JSON json_t *object = NULL;

    out->sealed = BUF(CLIENT_REPLY_MAX / 2);
    if (json_read_object(text, &object, NULL, err) < 0 || read_nonce(object, out->nonce, err) < 0 ||
        read_hex(object, "enclave_public_key", &spki, err) < 0)
        return -1;
    if (p384_point_from_spki(buf_slice(&spki), out->enclave_point, err) < 0)
        return error_wrap(err, "enclave_public_key");
    return read_hex(object, "encrypted_data", &out->sealed, err);
}
