#include "base/text.h"
#include "cli/client_tx.h"
#include "codec/json.h"
#include "codec/rlp.h"
#include "crypto/keccak.h"

static void put_data(struct json_writer *w, const char *key, struct slice bytes)
{
    AUTO_FREE char *hex = hex_encode_dup("0x", bytes);

    if (key)
        json_put_key(w, key);
    json_put_cstr(w, hex);
}

/* As Ethereum writes quantities: no leading zeros, zero is 0x0. */
static void put_integer(struct json_writer *w, const char *key, struct slice bytes)
{
    AUTO_FREE char *hex = hex_encode_dup("", bytes);
    const char *digits = hex + strspn(hex, "0");
    AUTO_FREE char *text = xasprintf("0x%s", *digits ? digits : "0");

    json_put_key(w, key);
    json_put_cstr(w, text);
}

/* The list was checked when the transaction was parsed. */
static void put_access_list(struct json_writer *w, struct slice list)
{
    struct reader entries = reader_of(list), items, keys;
    struct slice entry, address, key, key_list;

    json_put_key(w, "access_list");
    json_put_array(w);
    while (rlp_read_list(&entries, &entry)) {
        items = reader_of(entry);
        if (!rlp_read_string(&items, &address) || !rlp_read_list(&items, &key_list))
            break;
        json_put_object(w);
        put_data(w, "address", address);
        json_put_key(w, "storage_keys");
        json_put_array(w);
        keys = reader_of(key_list);
        while (rlp_read_string(&keys, &key))
            put_data(w, NULL, key);
        json_put_array_end(w);
        json_put_object_end(w);
    }
    json_put_array_end(w);
}

int client_tx_print(const struct eth_tx *tx, const uint8_t *signature, const uint8_t *hash,
                    const char *from, struct buf *out)
{
    struct json_writer w = {.out = out};

    json_put_object(&w);
    json_put_key(&w, "type");
    json_put_cstr(&w, "0x2");
    put_integer(&w, "chain_id", tx->chain_id);
    put_integer(&w, "nonce", tx->nonce);
    put_integer(&w, "max_priority_fee_per_gas", tx->max_priority_fee_per_gas);
    put_integer(&w, "max_fee_per_gas", tx->max_fee_per_gas);
    put_integer(&w, "gas_limit", tx->gas_limit);
    if (tx->to.len) {
        put_data(&w, "to", tx->to);
    } else {
        json_put_key(&w, "to");
        json_put_null(&w);
    }
    put_integer(&w, "value", tx->value);
    put_data(&w, "data", tx->data);
    put_access_list(&w, tx->access_list);
    put_integer(&w, "y_parity", slice_of(signature + 64, 1));
    put_integer(&w, "r", slice_of(signature, 32));
    put_integer(&w, "s", slice_of(signature + 32, 32));
    put_data(&w, "hash", slice_of(hash, KECCAK256_LEN));
    json_put_key(&w, "from");
    json_put_cstr(&w, from);
    json_put_object_end(&w);
    return w.failed || buf_append_byte(out, '\n') < 0 ? -1 : 0;
}
