#include "api/signing.h"

#include "crypto/eth.h"

static int sign(const struct k256_key *key, const uint8_t *digest, struct eth_signed *out,
                struct error *err)
{
    if (k256_sign(key, digest, out->signature) < 0)
        return error_set(err, ERR_INTERNAL, "the signature of this input has no yParity of 0 or 1");
    return 0;
}

int eth_sign_message(const struct k256_key *key, const struct eth_message_request *request,
                     struct eth_signed *out, struct error *err)
{
    *out = (struct eth_signed){0};
    memcpy(out->hash, request->digest, sizeof(out->hash));
    return sign(key, request->digest, out, err);
}

int eth_sign_tx(const struct k256_key *key, const struct eth_tx_request *request,
                struct eth_signed *out, struct error *err)
{
    uint8_t digest[KECCAK256_LEN];

    /* yParity, r and s take 67 bytes, and the list's head may grow. */
    *out = (struct eth_signed){.raw = BUF(request->payload.len + 128)};
    keccak256_once(buf_slice(&request->payload), digest);
    if (sign(key, digest, out, err) < 0)
        return -1;
    if (eth_tx_put_signed(&request->tx, out->signature, &out->raw) < 0)
        return error_set(err, ERR_INTERNAL, "the signed transaction does not fit");
    keccak256_once(buf_slice(&out->raw), out->hash);
    return 0;
}

void eth_signed_release(struct eth_signed *s)
{
    buf_free(&s->raw);
}

void eth_signed_put(const struct eth_signed *s, const char *address, struct json_writer *w)
{
    if (s->raw.len) {
        json_put_key(w, "raw_transaction");
        json_put_hex(w, "0x", buf_slice(&s->raw));
        json_put_key(w, "transaction_hash");
        json_put_hex(w, "0x", slice_of(s->hash, sizeof(s->hash)));
    }
    json_put_key(w, "signature");
    json_put_hex(w, "0x", slice_of(s->signature, sizeof(s->signature)));
    json_put_key(w, "address");
    json_put_cstr(w, address);
}

size_t eth_signed_size(const struct eth_signed *s)
{
    /* The hash, the signature, the address, and the names of the members. */
    return 2 * s->raw.len + 2 * sizeof(s->hash) + 2 * sizeof(s->signature) + ETH_ADDRESS_STRLEN +
           128;
}
